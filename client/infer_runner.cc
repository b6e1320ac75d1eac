// SPDX-License-Identifier: Apache-2.0
//
// Sends an inference in one message, or lets several threads take and send its chunks.
#include "client/infer_runner.h"

#include <algorithm>
#include <exception>
#include <functional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/types/optional.h"
#include "client/chunk_queue.h"

namespace swiglu::client {
namespace {

// The bytes of each tensor below which a chunk does not shrink.
constexpr int64_t kLeastChunkBytes = 1024;

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
  budget_.EarnByCall();
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
  return RunWithRetries(inference, limit, OnPushback::kRetry).weights;
}

InferRunner::Outcome InferRunner::RunWithRetries(const Inference& inference, const TimeLimit& limit,
                                                 OnPushback on_pushback) {
  ServerSet tried;
  for (int attempt = 1;; ++attempt) {
    Outcome outcome = RunOnce(inference, limit, tried);
    if (outcome.weights.ok()) return outcome;
    tried.Add(outcome.server);
    const absl::Status status = outcome.weights.status();
    absl::optional<absl::Duration> wait =
        WaitBeforeRetry({status, outcome.pushback, attempt}, RandomShare());
    // Without a pushback the server may have begun, and have written over what it would read again.
    if (inference.overwrites_inputs() && !outcome.pushback) wait = absl::nullopt;
    // What another server has not refused yet costs no time and no budget there.
    const bool has_other = wait && pool_->num_servers() > 1 && pool_->HasOther(tried);
    if (!has_other && on_pushback == OnPushback::kReturn && outcome.pushback) return outcome;
    if (wait && !has_other) wait = std::min(*wait, pool_->TimeUntilOpen());
    if (!wait || attempt == options_.max_attempts ||
        (!has_other && (absl::Now() + *wait >= limit.deadline || !budget_.SpendOnRetry()))) {
      if (attempt > 1) {
        outcome.weights = absl::Status(
            status.code(), absl::StrCat(status.message(), " (tried ", attempt, " times)"));
      }
      return outcome;
    }
    if (!has_other) absl::SleepFor(*wait);
  }
}

InferRunner::Outcome InferRunner::RunOnce(const Inference& inference, const TimeLimit& limit,
                                          const ServerSet& tried) {
  Loan loan;
  CallOutcome outcome =
      pool_->Call(kModelInfer, EncodeInferRequest(inference, &loan), limit, tried);
  if (!outcome.answer.ok()) return {outcome.answer.status(), outcome.pushback, outcome.server};
  return {DecodeInferResponse(*std::move(outcome.answer), inference), absl::nullopt,
          outcome.server};
}

int64_t InferRunner::ChunkElements(const Inference& inference) const {
  const int64_t bytes_per_element = NumCarried(inference) * ElementBytes(inference.dtype);
  const int64_t most =
      std::max<int64_t>(1, (options_.chunk_bytes - MaxPartOverhead(inference)) / bytes_per_element);
  if (!inference.is_mlp()) return most;
  return std::max(most / inference.row_elements, int64_t{1}) * inference.row_elements;
}

int64_t InferRunner::LeastElements(const Inference& inference) const {
  if (inference.is_mlp()) return inference.row_elements;
  // Smaller messages would be more overhead than tensors.
  return std::max<int64_t>(1, kLeastChunkBytes / ElementBytes(inference.dtype));
}

absl::StatusOr<std::string> InferRunner::RunSplit(const Inference& inference,
                                                  const TimeLimit& limit, const OnChunk& on_chunk) {
  if (inference.is_mlp()) {
    const int64_t row_bytes = LargestMessageBytes(inference.Part(0, inference.row_elements));
    if (row_bytes > options_.max_message_bytes) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "a row of '", inference.inputs.front().name, "' takes a message of ", row_bytes,
          " bytes; option max_message_bytes is ", options_.max_message_bytes));
    }
  }

  const int64_t num_elements = inference.num_elements();
  const int64_t chunk_elements = ChunkElements(inference);
  const int64_t most_chunks = (num_elements + chunk_elements - 1) / chunk_elements;
  const int64_t num_connections = options_.num_connections * pool_->num_servers();
  const int num_threads = static_cast<int>(std::min(num_connections, most_chunks));
  ChunkQueue queue(inference.model,
                   {num_elements, chunk_elements, LeastElements(inference), num_threads},
                   limit.deadline);
  RunOnThreads(num_threads, [&] {
    while (const absl::optional<Chunk> chunk = queue.Take()) {
      RunChunk(inference, *chunk, limit, on_chunk, queue);
    }
  });
  return queue.Result();
}

void InferRunner::RunChunk(const Inference& inference, const Chunk& chunk, const TimeLimit& limit,
                           const OnChunk& on_chunk, ChunkQueue& queue) {
  const Outcome outcome =
      RunWithRetries(inference.Part(chunk.first, chunk.count), limit, OnPushback::kReturn);
  const absl::Status& status = outcome.weights.status();
  if (const absl::optional<absl::Duration> wait =
          outcome.pushback ? WaitBeforeRetry({status, outcome.pushback, 1}, RandomShare())
                           : absl::nullopt) {
    queue.PushBack(chunk, status, std::min(*wait, pool_->TimeUntilOpen()));
  } else if (absl::IsResourceExhausted(status)) {
    queue.Shrink(chunk, status);
  } else if (!status.ok()) {
    queue.Fail(status);
  } else if (const absl::optional<ChunkProgress> progress = queue.Succeed(chunk, *outcome.weights);
             progress && on_chunk) {
    try {
      on_chunk(progress->num_done, progress->num_chunks);
    } catch (...) {
      queue.Throw(std::current_exception());
    }
  }
}

}  // namespace swiglu::client
