// SPDX-License-Identifier: Apache-2.0
//
// Calls that gather, messages that are away, and the check of deadlines.
#include "client/coalescing_connection.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <list>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/types/optional.h"
#include "client/call_ends.h"
#include "client/joined_message.h"

namespace swiglu::client {
namespace {

// How often deadlines of calls that gathered are checked.
constexpr absl::Duration kCheckInterval = absl::Milliseconds(10);

constexpr size_t kNumDtypes = 3;

}  // namespace

// The calls of one operation and dtype.
class CoalescingConnection::Lane {
 private:
  // A message, or a call that left alone.
  struct Away {
    absl::Time left;
    std::unique_ptr<JoinedMessage> message;  // nullptr for a call that left alone
    size_t num_calls;
  };
  using AwayPosition = std::list<Away>::iterator;

  // The largest of the last numbers: of 64 to 128 of them.
  class RecentPeak {
   public:
    void Note(size_t number) {
      if (num_noted_++ % kWindow == 0) {
        before_ = current_;
        current_ = 0;
      }
      current_ = std::max(current_, number);
    }
    size_t value() const { return std::max(before_, current_); }

   private:
    static constexpr size_t kWindow = 64;

    size_t num_noted_ = 0;
    size_t current_ = 0;
    size_t before_ = 0;
  };

 public:
  explicit Lane(CoalescingConnection* owner) : owner_(*owner) {}

  void Add(const Inference& inference, const CallContext& context, Done done) {
    absl::optional<AwayPosition> alone;
    {
      absl::MutexLock lock(&mutex_);
      num_under_way_.Note(num_calls_away_ + gathering_.size() + 1);
      if (!gathering_.empty() || !(HasFewCalls() || HasRoom())) {
        gathered_bytes_ += inference.input_bytes();
        gathering_.push_back(
            {&inference, static_cast<size_t>(inference.tensor_bytes()), context, std::move(done)});
        StartChecks();
        if (!IsFull()) return;
      } else {
        alone = Leave(nullptr);
      }
    }
    alone ? SendLone(*alone, inference, context, std::move(done)) : SendGathered();
  }

 private:
  bool IsFull() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return gathered_bytes_ >= owner_.options_.full_bytes;
  }

  // Not only now, because the calls of a message that has come back may soon be followed by as
  // many.
  bool HasFewCalls() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return num_under_way_.value() <= static_cast<size_t>(owner_.options_.max_alone);
  }

  bool HasRoom() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const CoalescingOptions& options = owner_.options_;
    const auto max_away = static_cast<size_t>(IsFull() ? options.max_full_away : options.max_away);
    if (away_.size() < max_away) return true;
    const absl::Time overdue = absl::Now() - owner_.options_.overdue;
    const auto is_overdue = [overdue](const Away& away) { return away.left < overdue; };
    const auto num_overdue = std::count_if(away_.begin(), away_.end(), is_overdue);
    return away_.size() - static_cast<size_t>(num_overdue) < max_away;
  }

  AwayPosition Leave(std::unique_ptr<JoinedMessage> message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const size_t num_calls = message == nullptr ? 1 : message->num_calls();
    num_calls_away_ += num_calls;
    return away_.insert(away_.end(), {absl::Now(), std::move(message), num_calls});
  }

  // Notes that a message or a call has come back. Sends what has gathered.
  void Return(AwayPosition away) {
    {
      absl::MutexLock lock(&mutex_);
      num_calls_away_ -= away->num_calls;
      away_.erase(away);
      if (gathering_.empty()) return;
    }
    SendGathered();
  }

  // Sends what has gathered, if there is room, without the calls that are over.
  void SendGathered() {
    std::vector<EndedCall> ended;
    absl::optional<AwayPosition> next;
    {
      absl::MutexLock lock(&mutex_);
      EndGathered(absl::Now(), &ended);
      next = TakeGathered();
    }
    if (next) Send(*next);
    EndAll(std::move(ended));
  }

  // The next message, if calls have gathered and there is room.
  absl::optional<AwayPosition> TakeGathered() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (gathering_.empty() || !HasRoom()) return absl::nullopt;
    const auto count = static_cast<std::ptrdiff_t>(NumForMessage());
    std::vector<JoinedCall> calls;
    if (count == static_cast<std::ptrdiff_t>(gathering_.size())) {
      calls.swap(gathering_);
      gathering_.reserve(calls.size());
    } else {
      const auto end = gathering_.begin() + count;
      calls.assign(std::make_move_iterator(gathering_.begin()), std::make_move_iterator(end));
      gathering_.erase(gathering_.begin(), end);
    }
    std::unique_ptr<JoinedMessage> message;
    if (idle_.empty()) {
      message = std::make_unique<JoinedMessage>();
    } else {
      message = std::move(idle_.back());
      idle_.pop_back();
    }
    for (const JoinedCall& call : calls) gathered_bytes_ -= call.inference->input_bytes();
    message->Fill(std::move(calls));
    return Leave(std::move(message));
  }

  // How many of the calls that gather fit into a message.
  size_t NumForMessage() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const CoalescingOptions& options = owner_.options_;
    const size_t most = std::min(gathering_.size(), static_cast<size_t>(options.max_message_calls));
    int64_t bytes = 0;
    for (size_t i = 0; i < most; ++i) {
      bytes += gathering_[i].inference->input_bytes();
      if (i > 0 && bytes > options.max_message_bytes) return i;
    }
    return most;
  }

  void SendLone(AwayPosition away, const Inference& inference, const CallContext& context,
                Done done) {
    CallContext own = context;
    if (own.queue == nullptr) own.queue = owner_.threads_->Current();
    owner_.inner_->StartInfer(inference, own,
                              [this, away, done = std::move(done)](CallResult&& result) mutable {
                                Return(away);
                                std::move(done)(std::move(result));
                              });
  }

  void Send(AwayPosition away) {
    JoinedMessage& message = *away->message;
    message.CopyInputs();
    {
      absl::MutexLock lock(&mutex_);
      message.SetSent();
    }
    // Large messages share the threads. Small ones stay on one, which then rarely sleeps.
    EventQueue* const queue = message.inference().input_bytes() >= owner_.options_.full_bytes
                                  ? owner_.threads_->Next()
                                  : owner_.threads_->Current();
    owner_.inner_->StartInfer(
        message.inference(), message.context(queue),
        [this, away](CallResult&& result) { OnResult(away, std::move(result)); });
  }

  void OnResult(AwayPosition away, CallResult result) {
    std::unique_ptr<JoinedMessage> message;
    {
      absl::MutexLock lock(&mutex_);
      message = std::move(away->message);
    }
    // The server works on the next message while these calls end.
    Return(away);
    result.statistics.num_joined = static_cast<int64_t>(message->num_calls());
    if (result.status.ok()) message->CopyOutputs();
    std::vector<JoinedCall> calls = message->TakeCalls();
    {
      absl::MutexLock lock(&mutex_);
      if (idle_.size() < static_cast<size_t>(owner_.options_.max_full_away)) {
        idle_.push_back(std::move(message));
      }
    }
    for (JoinedCall& call : calls) End(std::move(call), result);
  }

  void End(JoinedCall call, const CallResult& result) {
    const bool is_refused =
        absl::IsResourceExhausted(result.status) || absl::IsInvalidArgument(result.status);
    // With a pushback, the server is full and takes none of them.
    if (is_refused && !result.pushback) return SendAlone(std::move(call), result.statistics);
    CallResult own = result;
    if (absl::IsDeadlineExceeded(own.status)) {
      own.status = LateStatus(call.context.limit, owner_.options_.servers);
    }
    std::move(call.done)(std::move(own));
  }

  void SendAlone(JoinedCall call, const CallStatistics& joined) {
    // No event of the call happens on the thread that waits for it.
    call.context.queue = owner_.threads_->Current();
    call.context.streams = nullptr;
    owner_.inner_->StartInfer(*call.inference, call.context,
                              [num_messages = joined.num_messages, bytes_sent = joined.bytes_sent,
                               done = std::move(call.done)](CallResult&& result) mutable {
                                result.statistics.num_messages += num_messages;
                                result.statistics.bytes_sent += bytes_sent;
                                std::move(done)(std::move(result));
                              });
  }

  // Checks deadlines from now on, as long as calls gather or messages are away.
  void StartChecks() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (is_checking_) return;
    is_checking_ = true;
    Timer::Start(owner_.threads_->Current(), absl::Now() + kCheckInterval, [this] { Check(); });
  }

  void Check() {
    std::vector<EndedCall> ended;
    absl::optional<AwayPosition> next;
    {
      absl::MutexLock lock(&mutex_);
      is_checking_ = false;
      const absl::Time now = absl::Now();
      EndGathered(now, &ended);
      bool has_calls = false;
      for (Away& away : away_) {
        if (away.message == nullptr) continue;
        has_calls |= away.message->EndLate(now, owner_.options_.servers, &ended);
      }
      next = TakeGathered();
      if (!gathering_.empty() || has_calls || next) StartChecks();
    }
    if (next) Send(*next);
    EndAll(std::move(ended));
  }

  // Takes out the calls that are late or cancelled.
  void EndGathered(absl::Time now, std::vector<EndedCall>* ended)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    for (JoinedCall& call : gathering_) EndIfOver(call, now, owner_.options_.servers, ended);
    if (ended->empty()) return;
    EraseEnded(&gathering_);
    gathered_bytes_ = 0;
    for (const JoinedCall& call : gathering_) gathered_bytes_ += call.inference->input_bytes();
  }

  CoalescingConnection& owner_;
  absl::Mutex mutex_;
  std::vector<JoinedCall> gathering_ ABSL_GUARDED_BY(mutex_);
  int64_t gathered_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // of their inputs
  std::list<Away> away_ ABSL_GUARDED_BY(mutex_);
  size_t num_calls_away_ ABSL_GUARDED_BY(mutex_) = 0;  // in `away_`
  RecentPeak num_under_way_ ABSL_GUARDED_BY(mutex_);   // when a call began
  std::vector<std::unique_ptr<JoinedMessage>> idle_ ABSL_GUARDED_BY(mutex_);
  bool is_checking_ ABSL_GUARDED_BY(mutex_) = false;
};

CoalescingConnection::CoalescingConnection(Connection* inner, const CoalescingOptions& options,
                                           EventThreads* threads)
    : inner_(inner), options_(options), threads_(threads) {
  for (std::unique_ptr<Lane>& lane : lanes_) lane = std::make_unique<Lane>(this);
}

CoalescingConnection::~CoalescingConnection() = default;

CoalescingConnection::Lane* CoalescingConnection::LaneOf(const Inference& inference,
                                                         const CallContext& context) const {
  const CallOptions& options = *context.options;
  const bool is_plain =
      options.request_id.empty() && options.traceparent.empty() && options.priority == 0;
  // Chunks of an operation that was too large stay apart.
  if (!is_plain || context.return_pushback || inference.is_mlp() || inference.num_elements() == 0)
    return nullptr;
  if (inference.input_bytes() > options_.max_call_bytes || inference.uses_regions()) return nullptr;
  // What is over already is refused at once.
  if (IsCancelled(context) || absl::Now() >= context.limit.deadline) return nullptr;
  const bool is_backward = inference.outputs.size() > 1;
  return lanes_[kNumDtypes * (is_backward ? 1 : 0) + static_cast<size_t>(inference.dtype)].get();
}

void CoalescingConnection::StartInfer(const Inference& inference, const CallContext& context,
                                      Done done) {
  Lane* const lane = LaneOf(inference, context);
  if (lane == nullptr) return inner_->StartInfer(inference, context, std::move(done));
  lane->Add(inference, context, std::move(done));
}

}  // namespace swiglu::client
