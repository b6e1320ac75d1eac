// SPDX-License-Identifier: Apache-2.0
//
// Sends an inference in one message, or lets several threads take and send its chunks.
#include "client/infer_runner.h"

#include <algorithm>
#include <exception>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"

namespace swiglu::client {
namespace {

// Hands out the chunks of an inference, and keeps the first error and the first exception.
// Thread-safe. `model` must outlive it.
class ChunkQueue {
 public:
  ChunkQueue(absl::string_view model, int64_t num_chunks)
      : model_(model), num_chunks_(num_chunks) {}

  // The index of the next chunk, or -1 if none is left or a chunk has failed.
  int64_t Take() {
    absl::MutexLock lock(&mutex_);
    return !status_.ok() || exception_ || next_ == num_chunks_ ? -1 : next_++;
  }

  // Notes that a chunk was computed by `weights`, or failed. It fails, too, if an earlier chunk was
  // computed by others. Returns how many chunks have succeeded so far, or nullopt if this one has
  // failed.
  absl::optional<int64_t> Finish(absl::StatusOr<std::string> weights) {
    absl::MutexLock lock(&mutex_);
    if (weights.ok() && num_done_ > 0 && *weights != weights_) {
      weights = absl::AbortedError(
          absl::StrCat("the weights of '", model_, "' changed during the call; try again"));
    }
    if (!weights.ok()) {
      if (status_.ok()) status_ = weights.status();
      return absl::nullopt;
    }
    weights_ = *std::move(weights);
    return ++num_done_;
  }

  // Notes that `on_chunk` threw.
  void Throw(std::exception_ptr exception) {
    absl::MutexLock lock(&mutex_);
    if (!exception_) exception_ = std::move(exception);
  }

  // The weights of all chunks, or the first error. Rethrows the first exception. REQUIRES: all
  // threads have ended.
  absl::StatusOr<std::string> Result() {
    absl::MutexLock lock(&mutex_);
    if (exception_) std::rethrow_exception(exception_);
    if (!status_.ok()) return status_;
    return weights_;
  }

 private:
  const absl::string_view model_;
  const int64_t num_chunks_;
  absl::Mutex mutex_;
  int64_t next_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_done_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string weights_ ABSL_GUARDED_BY(mutex_);  // of the chunks that have succeeded
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::exception_ptr exception_ ABSL_GUARDED_BY(mutex_);
};

// Runs `work` on `num_threads` threads, including this one. Uses fewer threads if the system cannot
// start more.
void RunOnThreads(int num_threads, const std::function<void()>& work) {
  std::vector<std::thread> threads;
  try {
    while (static_cast<int>(threads.size()) < num_threads - 1) threads.emplace_back(work);
  } catch (const std::system_error&) {
  }
  work();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

absl::StatusOr<std::string> InferRunner::Run(const Inference& inference, const TimeLimit& limit,
                                             const OnChunk& on_chunk) {
  // What is all in regions has nothing to split.
  const int64_t message_bytes = NumCarried(inference) > 0 ? LargestMessageBytes(inference) : 0;
  if (message_bytes <= options_.max_message_bytes) {
    absl::StatusOr<std::string> weights = RunWhole(inference, limit);
    const absl::Status& status = weights.status();
    // The server's limit may be below ours. In that case it has not looked at the tensors.
    if (!absl::IsResourceExhausted(status) || message_bytes <= options_.chunk_bytes) return weights;
    if (inference.num_elements() <= inference.row_elements || inference.has_gradients()) {
      return weights;
    }
  }
  if (inference.has_gradients()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("gradients of weights take a message of ", message_bytes,
                     " bytes; option max_message_bytes is ", options_.max_message_bytes,
                     "; gradients in regions of shared memory need no room in messages"));
  }
  return RunSplit(inference, limit, on_chunk);
}

absl::StatusOr<std::string> InferRunner::RunWhole(const Inference& inference,
                                                  const TimeLimit& limit) {
  Loan loan;
  absl::StatusOr<grpc::ByteBuffer> response =
      pool_->Call(kModelInfer, EncodeInferRequest(inference, &loan), limit);
  if (!response.ok()) return response.status();
  return DecodeInferResponse(*std::move(response), inference);
}

int64_t InferRunner::ChunkElements(const Inference& inference) const {
  const int64_t bytes_per_element = NumCarried(inference) * ElementBytes(inference.dtype);
  const int64_t most =
      std::max<int64_t>(1, (options_.chunk_bytes - MaxPartOverhead(inference)) / bytes_per_element);
  if (!inference.is_mlp()) return most;
  return std::max(most / inference.row_elements, int64_t{1}) * inference.row_elements;
}

absl::StatusOr<std::string> InferRunner::RunSplit(const Inference& inference,
                                                  const TimeLimit& limit, const OnChunk& on_chunk) {
  const int64_t chunk_elements = ChunkElements(inference);
  const int64_t num_elements = inference.num_elements();
  const int64_t num_chunks =
      std::max<int64_t>(1, (num_elements + chunk_elements - 1) / chunk_elements);
  if (inference.is_mlp()) {
    const int64_t row_bytes = LargestMessageBytes(inference.Part(0, inference.row_elements));
    if (row_bytes > options_.max_message_bytes) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "a row of '", inference.inputs.front().name, "' takes a message of ", row_bytes,
          " bytes; option max_message_bytes is ", options_.max_message_bytes));
    }
  }

  ChunkQueue queue(inference.model, num_chunks);
  const auto work = [&] {
    for (int64_t k = queue.Take(); k >= 0; k = queue.Take()) {
      const int64_t first = k * chunk_elements;
      const int64_t count = std::min(chunk_elements, num_elements - first);
      const absl::optional<int64_t> num_done =
          queue.Finish(RunWhole(inference.Part(first, count), limit));
      if (!num_done || !on_chunk) continue;
      try {
        on_chunk(*num_done, num_chunks);
      } catch (...) {
        queue.Throw(std::current_exception());
      }
    }
  };
  RunOnThreads(static_cast<int>(std::min<int64_t>(options_.num_connections, num_chunks)), work);
  return queue.Result();
}

}  // namespace swiglu::client
