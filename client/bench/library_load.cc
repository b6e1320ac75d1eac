// SPDX-License-Identifier: Apache-2.0
//
// Threads that take a turn, call, and count.
#include <algorithm>
#include <cstddef>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "client/bench/load.h"
#include "client/bench/model_call.h"
#include "swiglu/client.h"

namespace swiglu::bench {
namespace {

using client::InputTensor;
using client::OutputTensor;
using client::TensorView;

class LibraryLoad final : public Load {
 public:
  LibraryLoad(const LoadOptions& options, const std::vector<RequestData>* data,
              client::Client client)
      : options_(options), data_(*data), client_(std::move(client)) {
    int64_t answer_bytes = 0;
    for (const RequestData& size : data_) {
      if (options_.shared_tensors == nullptr) {
        answer_bytes = std::max(answer_bytes, size.output_bytes());
      }
    }
    for (int i = 0; i < options_.num_in_flight; ++i) {
      callers_.emplace_back(i, data_.size(), static_cast<size_t>(answer_bytes),
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
    Caller(int its_index, size_t num_sizes, size_t answer_bytes, SizePicker its_sizes)
        : index(static_cast<size_t>(its_index)),
          sizes(std::move(its_sizes)),
          tally(num_sizes),
          answer(answer_bytes) {}

    size_t index;
    size_t num_called = 0;
    SizePicker sizes;
    Tally tally;
    std::vector<std::byte> answer;  // empty if the tensors are in shared memory
    std::thread thread;
  };

  void CallUntilStopped(Pace& pace, Caller& caller) const {
    while (const absl::optional<Turn> turn = pace.Next()) {
      const size_t size = caller.sizes.Pick();
      const size_t layer = caller.num_called++ % options_.model->names.size();
      absl::Status status = Call(data_[size], layer, caller);
      const Clock::time_point done = Clock::now();
      if (options_.shared_tensors != nullptr) {
        options_.shared_tensors->Finish(caller.index, layer, data_[size], status);
      }
      if (status.ok() && options_.first_answers != nullptr) {
        const absl::string_view answer(reinterpret_cast<const char*>(caller.answer.data()),
                                       static_cast<size_t>(data_[size].output_bytes()));
        status = options_.first_answers->Compare(size, layer, answer);
      }
      if (pace.Counts(*turn, done)) {
        caller.tally.Record(size, data_[size], *turn, done, status);
      }
    }
  }

  absl::Status Call(const RequestData& data, size_t layer, Caller& caller) const {
    const SharedTensors* const shared = options_.shared_tensors;
    const auto size = static_cast<size_t>(TensorBytes(data.model(), data.num_elements()));
    absl::InlinedVector<InputTensor, 3> inputs;
    for (size_t k = 0; k < data.model().inputs.size(); ++k) {
      inputs.push_back(shared != nullptr ? shared->Input(caller.index, k, data)
                                         : InputTensor(TensorView{data.model().dtype, data.shape(),
                                                                  data.input(k)}));
    }
    absl::InlinedVector<OutputTensor, 3> outputs;
    for (size_t k = 0; k < data.model().outputs.size(); ++k) {
      outputs.push_back(shared != nullptr
                            ? shared->Output(caller.index, k, data)
                            : OutputTensor(absl::MakeSpan(caller.answer).subspan(k * size, size)));
    }
    return CallModel(client_, data.model(), layer, inputs, outputs,
                     {.timeout = RequestTimeout(options_, data)});
  }

  const LoadOptions options_;
  const std::vector<RequestData>& data_;
  const client::Client client_;
  std::vector<Caller> callers_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Load>> CreateLibraryLoad(const LoadOptions& options,
                                                        const std::vector<RequestData>* data) {
  absl::StatusOr<client::Client> client =
      client::Client::Create(options.server, {.num_connections = options.num_connections,
                                              .max_attempts = options.max_attempts,
                                              .coalesce_bytes = options.coalesce_bytes,
                                              .spin = options.spin});
  if (!client.ok()) return client.status();
  return std::make_unique<LibraryLoad>(options, data, *std::move(client));
}

}  // namespace swiglu::bench
