// SPDX-License-Identifier: Apache-2.0
//
// Two attempts of one inference, and the timer between them.
#include "client/hedging_connection.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "client/call_ends.h"

namespace swiglu::client {

// An inference over memory of its own. The other attempt may write to the caller's outputs, which
// may be the memory of inputs.
class HedgingConnection::OwnInference {
 public:
  explicit OwnInference(const Inference& like) : inference_(like) {
    size_t size_bytes = 0;
    for (const Inference::Input& input : like.inputs) size_bytes += input.bytes.size();
    for (const Inference::Output& output : like.outputs) size_bytes += output.bytes.size();
    bytes_.resize(size_bytes);
    std::byte* to = bytes_.data();
    for (Inference::Input& input : inference_.inputs) {
      std::byte* const begin = to;
      to = std::copy(input.bytes.begin(), input.bytes.end(), to);
      input.bytes = {begin, input.bytes.size()};
    }
    for (Inference::Output& output : inference_.outputs) {
      output.bytes = {to, output.bytes.size()};
      to += output.bytes.size();
    }
  }
  OwnInference(const OwnInference&) = delete;
  OwnInference& operator=(const OwnInference&) = delete;

  const Inference& inference() const { return inference_; }

  void CopyOutputsTo(const Inference& other) const {
    for (size_t k = 0; k < inference_.outputs.size(); ++k) {
      const absl::Span<const std::byte> bytes = inference_.outputs[k].bytes;
      std::copy(bytes.begin(), bytes.end(), other.outputs[k].bytes.begin());
    }
  }

 private:
  Inference inference_;
  std::vector<std::byte> bytes_;
};

struct HedgingConnection::Attempt {
  Cancellation cancellation;
  std::atomic<int> server{-1};  // that got its last message
  CallResult result;            // set when it has ended
};

// Deletes itself when both attempts and the timer have ended.
class HedgingConnection::Race {
 public:
  Race(HedgingConnection* owner, const Inference& inference, const CallContext& context, Done done)
      : owner_(*owner), inference_(inference), context_(context), done_(std::move(done)) {
    // Events of one queue happen one after the other, so no answer arrives while inputs are copied.
    if (context_.queue == nullptr) context_.queue = owner_.threads_->Next();
  }

  void Start() {
    if (context_.cancellation != nullptr) context_.cancellation->SetStop([this] { Stop(); });
    {
      absl::MutexLock lock(&mutex_);
      StartTimer();
    }
    Send(inference_, context_.tried, &first_);
  }

 private:
  void StartTimer() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    timer_ =
        Timer::Start(context_.queue, absl::Now() + owner_.options_.delay, [this] { OnTimer(); });
  }

  void HurryTimer() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (timer_ != nullptr) timer_->Hurry();
  }

  void Send(const Inference& inference, const ServerSet& tried, Attempt* attempt) {
    CallContext context = context_;
    context.tried = tried;
    context.cancellation = &attempt->cancellation;
    context.sent_to = &attempt->server;
    owner_.inner_->StartInfer(inference, context, [this, attempt](CallResult result) {
      OnResult(attempt, std::move(result));
    });
  }

  // The second attempt takes the timer's place among what the race waits for.
  void OnTimer() {
    ServerSet tried;
    {
      absl::MutexLock lock(&mutex_);
      timer_ = nullptr;
      tried = context_.tried;
      const int server = first_.server.load(std::memory_order_relaxed);
      if (server >= 0) tried.Add(server);
      const bool is_pointless = num_ended_ > 0 || first_.cancellation.is_cancelled() ||
                                absl::Now() >= context_.limit.deadline;
      if (!is_pointless && (!owner_.HasOther(tried) || !owner_.SpendOnHedge())) {
        return StartTimer();
      }
      is_hedged_ = !is_pointless;
    }
    if (!is_hedged_) return EndOne();
    second_inference_.emplace(inference_);
    Send(second_inference_->inference(), tried, &second_);
  }

  void OnResult(Attempt* attempt, CallResult result) {
    const bool is_ok = result.status.ok();
    Attempt* loser = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      attempt->result = std::move(result);
      ++num_ended_;
      if (winner_ == nullptr || (is_ok && !winner_->result.status.ok())) winner_ = attempt;
      HurryTimer();
      if (winner_ == attempt && is_ok && is_hedged_ && num_ended_ == 1) {
        loser = attempt == &first_ ? &second_ : &first_;
      }
    }
    if (loser != nullptr) {
      loser->cancellation.Cancel();
      if (loser == &first_) NoteSilence();
    }
    EndOne();
  }

  void NoteSilence() {
    const int server = first_.server.load(std::memory_order_relaxed);
    if (server >= 0) owner_.servers_->AvoidIfSilent(server, start_);
  }

  // Ends the call early. Runs on any thread.
  void Stop() {
    first_.cancellation.Cancel();
    second_.cancellation.Cancel();
  }

  void EndOne() {
    {
      absl::MutexLock lock(&mutex_);
      if (--num_busy_ > 0) return;
    }
    Finish();
  }

  void Finish() {
    if (context_.cancellation != nullptr) context_.cancellation->ClearStop();
    CallResult result = TakeResult();
    AddMessages(Loser().result.statistics, &result.statistics);
    Done done = std::move(done_);
    delete this;
    std::move(done)(std::move(result));
  }

  // The attempt that does not count.
  const Attempt& Loser() {
    absl::MutexLock lock(&mutex_);
    return winner_ == &first_ ? second_ : first_;
  }

  CallResult TakeResult() {
    absl::MutexLock lock(&mutex_);
    if (winner_ == &second_ && winner_->result.status.ok()) {
      second_inference_->CopyOutputsTo(inference_);
    }
    return std::move(winner_->result);
  }

  HedgingConnection& owner_;
  const Inference& inference_;
  CallContext context_;
  Done done_;
  const absl::Time start_ = absl::Now();
  Attempt first_, second_;
  absl::optional<OwnInference> second_inference_;

  absl::Mutex mutex_;
  Timer* timer_ ABSL_GUARDED_BY(mutex_) = nullptr;
  // What the race waits for: the first attempt, and the timer or the second attempt.
  int num_busy_ ABSL_GUARDED_BY(mutex_) = 2;
  int num_ended_ ABSL_GUARDED_BY(mutex_) = 0;  // attempts
  // The first attempt that succeeded, or else the first that failed.
  Attempt* winner_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool is_hedged_ = false;  // written by the timer, under the lock
};

bool HedgingConnection::IsSmall(const Inference& inference, const CallContext& context) const {
  const int64_t most = context.is_joined ? options_.max_joined_bytes : options_.max_call_bytes;
  return inference.input_bytes() <= most && !inference.uses_regions() && !inference.has_gradients();
}

bool HedgingConnection::HasOther(const ServerSet& tried) const {
  return servers_->num_servers() == 1 || servers_->HasOther(tried);
}

bool HedgingConnection::SpendOnHedge() {
  if (budget_.SpendOnRetry()) return true;
  const absl::Time now = absl::Now();
  absl::MutexLock lock(&mutex_);
  if (now < next_unearned_) return false;
  next_unearned_ = now + options_.hedge_interval;
  return true;
}

void HedgingConnection::StartInfer(const Inference& inference, const CallContext& context,
                                   Done done) {
  if (!IsSmall(inference, context)) {
    return inner_->StartInfer(inference, context, std::move(done));
  }
  budget_.EarnByCall();
  (new Race(this, inference, context, std::move(done)))->Start();
}

}  // namespace swiglu::client
