// SPDX-License-Identifier: Apache-2.0
//
// Threads that take a turn, call, and count.
#include <algorithm>
#include <cstddef>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "client/bench/load.h"
#include "swiglu/client.h"

namespace swiglu::bench {
namespace {

using client::TensorView;

class LibraryLoad final : public Load {
 public:
  LibraryLoad(const LoadOptions& options, const std::vector<RequestData>* data,
              std::unique_ptr<client::Client> client)
      : options_(options), data_(*data), client_(std::move(client)) {
    int64_t answer_bytes = 0;
    for (const RequestData& size : data_)
      answer_bytes = std::max(answer_bytes, size.output_bytes());
    for (int i = 0; i < options_.num_in_flight; ++i) {
      callers_.emplace_back(data_.size(), static_cast<size_t>(answer_bytes),
                            SizePicker(options_.request_bytes, static_cast<uint32_t>(i)));
    }
  }

  void Start(Pace* pace) override {
    for (Caller& caller : callers_) {
      caller.thread = std::thread([this, pace, &caller] { CallUntilStopped(*pace, caller); });
    }
  }

  Tally Finish() override {
    Tally tally(data_.size());
    for (Caller& caller : callers_) {
      caller.thread.join();
      tally.Merge(caller.tally);
    }
    return tally;
  }

 private:
  // A thread and the data that only this thread uses.
  struct Caller {
    Caller(size_t num_sizes, size_t answer_bytes, SizePicker its_sizes)
        : sizes(std::move(its_sizes)), tally(num_sizes), answer(answer_bytes) {}

    SizePicker sizes;
    Tally tally;
    std::vector<std::byte> answer;
    std::thread thread;
  };

  void CallUntilStopped(Pace& pace, Caller& caller) const {
    while (const absl::optional<Turn> turn = pace.Next()) {
      const size_t size = caller.sizes.Pick();
      const absl::Status status = Call(data_[size], absl::MakeSpan(caller.answer));
      const Clock::time_point done = Clock::now();
      if (pace.Counts(*turn, done)) {
        caller.tally.Record(size, data_[size], *turn, done, status);
      }
    }
  }

  absl::Status Call(const RequestData& data, absl::Span<std::byte> answer) const {
    const auto size = static_cast<size_t>(TensorBytes(data.model(), data.num_elements()));
    const auto input = [&data](size_t k) {
      return TensorView{data.model().dtype, {data.num_elements()}, data.input(k)};
    };
    const client::CallOptions options{.timeout = RequestTimeout(options_, data.input_bytes())};
    if (data.model().inputs.size() == 2) {
      return client_->ForwardInto(input(0), input(1), answer.subspan(0, size), options);
    }
    return client_->BackwardInto(
        input(0), input(1), input(2),
        {answer.subspan(0, size), answer.subspan(size, size), answer.subspan(2 * size, size)},
        options);
  }

  const LoadOptions options_;
  const std::vector<RequestData>& data_;
  const std::unique_ptr<client::Client> client_;
  std::vector<Caller> callers_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Load>> CreateLibraryLoad(const LoadOptions& options,
                                                        const std::vector<RequestData>* data) {
  absl::StatusOr<std::unique_ptr<client::Client>> client =
      client::Client::Create(options.server, {.num_connections = options.num_connections});
  if (!client.ok()) return client.status();
  return std::make_unique<LibraryLoad>(options, data, *std::move(client));
}

}  // namespace swiglu::bench
