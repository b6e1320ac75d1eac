// SPDX-License-Identifier: Apache-2.0
//
// Copies the inputs of calls behind each other, and the outputs back.
#include "client/python/joined_calls.h"

#include <cstring>
#include <utility>

#include "client/python/interruptible_connection.h"
#include "swiglu/tensor.h"

namespace swiglu::python {
namespace {

// The most that the inputs of joined calls have together. A larger message would make the first
// call wait, and the cost of a message is small beside that of its bytes.
constexpr size_t kMostJoinedBytes = size_t{256} << 10;

// Calls that go to the server as one.
class JoinedCalls : public std::enable_shared_from_this<JoinedCalls> {
 public:
  // The calls are those of `completion` from `first` on.
  JoinedCalls(absl::Span<ModelCall> calls, std::shared_ptr<Completion> completion, size_t first)
      : calls_(calls), completion_(std::move(completion)), first_(first) {}

  // The object lives until the calls have ended.
  void Start(ClientState& client, const client::CallOptions& options) {
    CopyInputs();
    const CancellationScope scope(&completion_->end(first_).cancellation);
    const auto done = [self = shared_from_this(), &client, options](absl::Status status) {
      self->End(client, options, status);
    };
    client::Tensor* const in = inputs_.data();
    client::Tensor* const out = outputs_.data();
    if (calls_[0].operation() == Operation::kForward) {
      return client.client.ForwardIntoAsync(in[0].view(), in[1].view(), out[0].mutable_bytes(),
                                            done, options);
    }
    client.client.BackwardIntoAsync(
        in[0].view(), in[1].view(), in[2].view(),
        {out[0].mutable_bytes(), out[1].mutable_bytes(), out[2].mutable_bytes()}, done, options);
  }

 private:
  void CopyInputs() {
    int64_t size_bytes = 0;
    for (const ModelCall& call : calls_) {
      size_bytes += static_cast<int64_t>(call.inputs()[0].bytes().size());
    }
    const client::Dtype dtype = calls_[0].inputs()[0].dtype();
    const client::Shape shape = {size_bytes / client::ElementBytes(dtype)};
    for (size_t k = 0; k < calls_[0].inputs().size(); ++k) {
      inputs_.emplace_back(dtype, shape, size_bytes);
      std::byte* to = inputs_.back().mutable_bytes().data();
      for (const ModelCall& call : calls_) {
        const absl::Span<const std::byte> bytes = call.inputs()[k].bytes();
        if (!bytes.empty()) std::memcpy(to, bytes.data(), bytes.size());
        to += bytes.size();
      }
    }
    for (size_t k = 0; k < calls_[0].outputs().size(); ++k) {
      outputs_.emplace_back(dtype, shape, size_bytes);
    }
  }

  void CopyOutputs() const {
    for (size_t k = 0; k < outputs_.size(); ++k) {
      const std::byte* from = outputs_[k].bytes().data();
      for (const ModelCall& call : calls_) {
        const absl::Span<std::byte> bytes = call.outputs()[k].bytes();
        if (!bytes.empty()) std::memcpy(bytes.data(), from, bytes.size());
        from += bytes.size();
      }
    }
  }

  void End(ClientState& client, const client::CallOptions& options, const absl::Status& status) {
    // The server may take each of them by itself.
    if (absl::IsResourceExhausted(status)) {
      for (size_t i = 0; i < calls_.size(); ++i) {
        calls_[i].Start(client, options, completion_, first_ + i).IgnoreError();
      }
      return;
    }
    if (status.ok()) CopyOutputs();
    for (size_t i = 0; i < calls_.size(); ++i) {
      completion_->end(first_ + i).status = status;
      completion_->EndOne();
    }
  }

  const absl::Span<ModelCall> calls_;
  const std::shared_ptr<Completion> completion_;
  const size_t first_;
  std::vector<client::Tensor> inputs_;
  std::vector<client::Tensor> outputs_;
};

// How many of the calls at the front may go together. 1 if the first one goes by itself.
size_t NumJoined(absl::Span<const ModelCall> calls, int64_t most_bytes) {
  size_t sum_bytes = 0;
  for (size_t i = 0; i < calls.size(); ++i) {
    if (!calls[i].IsJoinable()) return i;
    const Array& like = calls[i].inputs()[0];
    if (like.dtype() != calls[0].inputs()[0].dtype()) return i;
    const size_t size_bytes = calls[i].inputs().size() * like.bytes().size();
    sum_bytes += size_bytes;
    if (static_cast<int64_t>(size_bytes) > most_bytes || sum_bytes > kMostJoinedBytes) return i;
  }
  return calls.size();
}

}  // namespace

void StartAll(ClientState& client, const client::CallOptions& options, absl::Span<ModelCall> calls,
              const std::shared_ptr<Completion>& completion) {
  size_t first = 0;
  while (first < calls.size()) {
    const size_t num_joined = NumJoined(calls.subspan(first), client.options.coalesce_bytes);
    if (num_joined < 2) {
      calls[first].Start(client, options, completion, first).IgnoreError();
      ++first;
      continue;
    }
    std::make_shared<JoinedCalls>(calls.subspan(first, num_joined), completion, first)
        ->Start(client, options);
    first += num_joined;
  }
}

}  // namespace swiglu::python
