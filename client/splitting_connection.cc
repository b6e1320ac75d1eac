// SPDX-License-Identifier: Apache-2.0
//
// The chunks of one operation, which start and end on any thread.
#include "client/splitting_connection.h"

#include <algorithm>
#include <list>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "client/call_ends.h"
#include "client/chunk_queue.h"
#include "client/infer_codec.h"
#include "client/retry.h"

namespace swiglu::client {
namespace {

// The bytes of each tensor below which a chunk does not shrink.
constexpr int64_t kLeastChunkBytes = 1024;

// The bytes of tensors in a message from which an inference is large, and that each of its parts
// has at least. Smaller parts cost more than they save.
constexpr int64_t kLargeBytes = int64_t{1} << 20;
constexpr int64_t kLeastPartBytes = int64_t{256} << 10;

int64_t LeastElements(const Inference& inference) {
  if (inference.is_mlp()) return inference.row_elements;
  // Smaller messages would be more overhead than tensors.
  return std::max<int64_t>(1, kLeastChunkBytes / ElementBytes(inference.dtype));
}

// Adds what a chunk's messages did to what the operation did.
void AddTo(CallStatistics* all, const CallStatistics& one) {
  const auto add = [](absl::optional<absl::Duration>* sum, absl::optional<absl::Duration> time) {
    if (time) *sum = sum->value_or(absl::ZeroDuration()) + *time;
  };
  AddMessages(one, all);
  if (!one.server.empty()) all->server = one.server;
  add(&all->queue_time, one.queue_time);
  add(&all->compute_time, one.compute_time);
}

}  // namespace

// Deletes itself when it has ended.
class SplittingConnection::Operation {
 public:
  // `refused` is what was sent before the operation was split.
  Operation(SplittingConnection* owner, const Inference& inference, const CallContext& context,
            const ChunkPlan& plan, CallStatistics refused, Done done)
      : Operation(owner, inference, context, plan, std::move(done)) {
    statistics_ = std::move(refused);
  }

  // An operation that would fit into one message. It fails as that would: it pays for its retries
  // once, it is refused for good after as many refusals as its parts have attempts, and `on_chunk`
  // is not called.
  static Operation* OfParts(SplittingConnection* owner, const Inference& inference,
                            const CallContext& context, const ChunkPlan& plan, Done done) {
    auto* const operation = new Operation(owner, inference, context, plan, std::move(done));
    operation->context_.paid_retries = &operation->paid_retries_;
    operation->num_refusals_left_ = (owner->max_attempts_ - 1) * plan.max_under_way;
    return operation;
  }

  void Start() {
    if (context_.cancellation != nullptr) context_.cancellation->SetStop([this] { Stop(); });
    EndOne();
  }

 private:
  Operation(SplittingConnection* owner, const Inference& inference, const CallContext& context,
            const ChunkPlan& plan, Done done)
      : owner_(*owner),
        inference_(inference),
        context_(context),
        done_(std::move(done)),
        queue_(inference.model, plan, context.limit.deadline) {}

  // A chunk that is under way.
  struct Running {
    Chunk chunk;
    Inference part;
    Cancellation cancellation;
  };

  // Ends one of the things that keep the operation busy. Starts every chunk that may begin now.
  // Ends the operation if nothing of it is left.
  void EndOne() {
    std::vector<Running*> begun;
    bool has_ended = false;
    {
      absl::MutexLock lock(&mutex_);
      --num_busy_;
      const absl::Time now = absl::Now();
      while (const absl::optional<Chunk> chunk = queue_.Take(now)) begun.push_back(Begin(*chunk));
      const absl::Time next = queue_.NextTake(now);
      if (next < absl::InfiniteFuture() && timer_ == nullptr) {
        ++num_busy_;
        timer_ = Timer::Start(owner_.threads_->Next(), next, [this] { OnTimer(); });
      }
      has_ended = num_busy_ == 0;
    }
    for (Running* const running : begun) Send(running);
    if (has_ended) Finish();
  }

  Running* Begin(const Chunk& chunk) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    ++num_busy_;
    Running& running = running_.emplace_back();
    running.chunk = chunk;
    running.part = inference_.Part(chunk.first, chunk.count);
    return &running;
  }

  void Send(Running* running) {
    CallContext context = context_;
    context.return_pushback = true;
    context.cancellation = &running->cancellation;
    context.queue = owner_.threads_->Next();
    context.streams = nullptr;
    owner_.inner_->StartInfer(running->part, context, [this, running](CallResult&& result) {
      OnResult(running, std::move(result));
    });
  }

  void OnResult(Running* running, CallResult result) {
    absl::optional<ChunkProgress> progress;
    {
      absl::MutexLock lock(&mutex_);
      AddTo(&statistics_, result.statistics);
      progress = Note(running->chunk, result);
      running_.remove_if([running](const Running& other) { return &other == running; });
    }
    if (progress && !IsOfParts() && context_.options->on_chunk) Report(*progress);
    EndOne();
  }

  absl::optional<ChunkProgress> Note(const Chunk& chunk, const CallResult& result)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const absl::Status& status = result.status;
    const absl::optional<absl::Duration> wait =
        result.pushback ? WaitBeforeRetry({status, result.pushback, 1}, RandomShare())
                        : absl::nullopt;
    absl::optional<ChunkProgress> progress;
    if (status.ok()) {
      progress = queue_.Succeed(result.weights_sha256);
    } else if (wait && IsOfParts() && --num_refusals_left_ < 0) {
      queue_.Fail(status);
    } else if (wait) {
      queue_.PushBack(chunk, status,
                      absl::Now() + std::min(*wait, owner_.servers_->TimeUntilOpen()));
    } else if (absl::IsResourceExhausted(status)) {
      queue_.Shrink(chunk, status);
    } else {
      queue_.Fail(status);
    }
    if (!queue_.Result().ok()) HurryTimer();
    return progress;
  }

  void Report(const ChunkProgress& progress) {
    try {
      context_.options->on_chunk(progress.num_done, progress.num_chunks);
    } catch (...) {
      absl::MutexLock lock(&mutex_);
      if (!exception_) exception_ = std::current_exception();
      queue_.Stop(absl::AbortedError("on_chunk threw an exception"));
      HurryTimer();
    }
  }

  // Ends the operation early.
  void Stop() {
    absl::MutexLock lock(&mutex_);
    queue_.Stop(CancelledStatus());
    for (Running& running : running_) running.cancellation.Cancel();
    HurryTimer();
  }

  void HurryTimer() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (timer_ != nullptr) timer_->Hurry();
  }

  void OnTimer() {
    {
      absl::MutexLock lock(&mutex_);
      timer_ = nullptr;
    }
    EndOne();
  }

  void Finish() {
    if (context_.cancellation != nullptr) context_.cancellation->ClearStop();
    CallResult result;
    {
      absl::MutexLock lock(&mutex_);
      absl::StatusOr<std::string> weights = queue_.Result();
      result.status = weights.status();
      if (weights.ok()) result.weights_sha256 = *std::move(weights);
      result.statistics = std::move(statistics_);
      result.exception = exception_;
    }
    Done done = std::move(done_);
    delete this;
    std::move(done)(std::move(result));
  }

  bool IsOfParts() const { return context_.paid_retries != nullptr; }

  SplittingConnection& owner_;
  const Inference& inference_;
  CallContext context_;  // not changed after the start
  Done done_;
  std::atomic<int> paid_retries_{0};
  absl::Mutex mutex_;
  ChunkQueue queue_ ABSL_GUARDED_BY(mutex_);
  std::list<Running> running_ ABSL_GUARDED_BY(mutex_);
  // What the operation waits for: its start, chunks under way or being reported, and the timer.
  int num_busy_ ABSL_GUARDED_BY(mutex_) = 1;
  Timer* timer_ ABSL_GUARDED_BY(mutex_) = nullptr;
  CallStatistics statistics_ ABSL_GUARDED_BY(mutex_);
  std::exception_ptr exception_ ABSL_GUARDED_BY(mutex_);
  int num_refusals_left_ ABSL_GUARDED_BY(mutex_) = 0;  // of parts
};

void SplittingConnection::StartInfer(const Inference& inference, const CallContext& context,
                                     Done done) {
  const bool may_spread = most_parts_ > 1 && !inference.is_mlp() &&
                          CarriedBytes(inference) >= kLargeBytes &&
                          FitsInto(inference, max_message_bytes_);
  if (!may_spread) return Send(inference, context, std::move(done));
  const int num_others = num_large_.fetch_add(1, std::memory_order_relaxed);
  Done counted = [this, done = std::move(done)](CallResult&& result) mutable {
    num_large_.fetch_sub(1, std::memory_order_relaxed);
    std::move(done)(std::move(result));
  };
  Spread(inference, context, most_parts_ / (num_others + 1), std::move(counted));
}

void SplittingConnection::Send(const Inference& inference, const CallContext& context, Done done) {
  if (FitsInto(inference, std::min(chunk_bytes_, max_message_bytes_))) {
    return inner_->StartInfer(inference, context, std::move(done));
  }
  // What is all in regions has nothing to split.
  const int64_t message_bytes = NumCarried(inference) > 0 ? LargestMessageBytes(inference) : 0;
  const bool has_parts =
      inference.num_elements() > inference.row_elements && !inference.has_gradients();
  if (message_bytes <= max_message_bytes_) {
    if (message_bytes <= chunk_bytes_ || !has_parts) {
      return inner_->StartInfer(inference, context, std::move(done));
    }
    return inner_->StartInfer(
        inference, context,
        [this, &inference, context, done = std::move(done)](CallResult&& result) mutable {
          // The server's limit may be below ours. In that case it has not looked at the tensors.
          if (!absl::IsResourceExhausted(result.status)) return std::move(done)(std::move(result));
          Split(inference, context, result.statistics, std::move(done));
        });
  }
  if (inference.has_gradients()) {
    CallResult result;
    result.status = absl::ResourceExhaustedError(
        absl::StrCat("gradients of weights take a message of ", message_bytes,
                     " bytes; option max_message_bytes is ", max_message_bytes_,
                     "; gradients in regions of shared memory need no room in messages"));
    return std::move(done)(std::move(result));
  }
  Split(inference, context, {}, std::move(done));
}

void SplittingConnection::Split(const Inference& inference, const CallContext& context,
                                CallStatistics refused, Done done) {
  if (inference.is_mlp()) {
    const int64_t row_bytes = LargestMessageBytes(inference.Part(0, inference.row_elements));
    if (row_bytes > max_message_bytes_) {
      CallResult result;
      result.statistics = std::move(refused);
      result.status = absl::ResourceExhaustedError(
          absl::StrCat("a row of '", inference.inputs.front().name, "' takes a message of ",
                       row_bytes, " bytes; option max_message_bytes is ", max_message_bytes_));
      return std::move(done)(std::move(result));
    }
  }
  const int64_t num_elements = inference.num_elements();
  const int64_t chunk_elements = ChunkElements(inference);
  const int64_t most_chunks = (num_elements + chunk_elements - 1) / chunk_elements;
  const int64_t num_connections = int64_t{num_connections_} * num_servers();
  const ChunkPlan plan{num_elements, chunk_elements, LeastElements(inference),
                       static_cast<int>(std::min(num_connections, most_chunks))};
  (new Operation(this, inference, context, plan, std::move(refused), std::move(done)))->Start();
}

void SplittingConnection::Spread(const Inference& inference, const CallContext& context,
                                 int most_parts, Done done) {
  const int64_t num_elements = inference.num_elements();
  const int64_t bytes = CarriedBytes(inference);
  const int64_t num_parts = std::min<int64_t>(most_parts, bytes / kLeastPartBytes);
  if (num_parts < 2) return Send(inference, context, std::move(done));
  const int64_t part_elements =
      std::min((num_elements + num_parts - 1) / num_parts, ChunkElements(inference));
  // The user wants messages that are smaller than parts are.
  if (part_elements < num_elements / (bytes / kLeastPartBytes)) {
    return Send(inference, context, std::move(done));
  }
  // A part that is too large for the server is not cut further, as a whole message is not.
  const ChunkPlan plan{num_elements, part_elements, part_elements, static_cast<int>(num_parts)};
  Operation::OfParts(this, inference, context, plan, std::move(done))->Start();
}

int64_t SplittingConnection::ChunkElements(const Inference& inference) const {
  const int64_t bytes_per_element = NumCarried(inference) * ElementBytes(inference.dtype);
  const int64_t most =
      std::max<int64_t>(1, (chunk_bytes_ - MaxPartOverhead(inference)) / bytes_per_element);
  if (!inference.is_mlp()) return most;
  return std::max(most / inference.row_elements, int64_t{1}) * inference.row_elements;
}

}  // namespace swiglu::client
