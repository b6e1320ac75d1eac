// SPDX-License-Identifier: Apache-2.0
//
// Threads that sleep, or wait in gRPC for events.
#include "client/event_queue.h"

#include <cstdint>
#include <utility>

#include "absl/time/clock.h"
#include "grpc/support/time.h"

namespace swiglu::client {
namespace {

// How often connections are looked after while no call is under way.
constexpr absl::Duration kLookAfterInterval = absl::Milliseconds(100);

// How often a thread that blocks calls what its caller wants.
constexpr absl::Duration kWhileWaitingInterval = absl::Milliseconds(100);

// One poll of gRPC handles one event of a socket.
constexpr int kPollsToLookAfter = 16;

// The threads that the calling thread belongs to, and its queue.
thread_local const EventThreads* current_threads = nullptr;
thread_local EventQueue* current_queue = nullptr;

gpr_timespec TimeAfter(absl::Duration delay) {
  if (delay == absl::InfiniteDuration()) return gpr_inf_future(GPR_CLOCK_MONOTONIC);
  const int64_t nanoseconds = absl::ToInt64Nanoseconds(delay);  // at most 292 years
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_nanos(nanoseconds, GPR_TIMESPAN));
}

}  // namespace

EventQueue::~EventQueue() {
  queue_.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
  }
}

void EventQueue::Expect() {
  if (num_expected_.fetch_add(1, std::memory_order_acq_rel) > 0) return;
  absl::MutexLock lock(&mutex_);
  changed_.Signal();
}

void EventQueue::Happen(void* tag, bool ok) {
  // Before the event, because a later event may be expected by it.
  num_expected_.fetch_sub(1, std::memory_order_acq_rel);
  static_cast<Event*>(tag)->OnEvent(ok);
}

void EventQueue::TakeOne(Wait wait) { TakeOneWithin(absl::InfiniteDuration(), wait); }

void EventQueue::TakeOneWithin(absl::Duration timeout, Wait wait) {
  void* tag = nullptr;
  bool ok = false;
  const gpr_timespec due = gpr_time_min(TimeAfter(timeout), reminder_time_);
  if (NextEvent(queue_, wait, due, &tag, &ok)) return Happen(tag, ok);
  if (gpr_time_cmp(gpr_now(GPR_CLOCK_MONOTONIC), reminder_time_) < 0) return;
  Reminder* const reminder = reminder_;
  ForgetReminder();
  reminder->OnTime();
}

void EventQueue::Remind(absl::Duration delay, Reminder* reminder) {
  reminder_ = reminder;
  reminder_time_ = TimeAfter(delay);
}

void EventQueue::ForgetReminder() {
  reminder_ = nullptr;
  reminder_time_ = gpr_inf_future(GPR_CLOCK_MONOTONIC);
}

void EventQueue::Poll() {
  void* tag = nullptr;
  bool ok = false;
  for (int i = 0; i < kPollsToLookAfter; ++i) {
    const gpr_timespec past = gpr_time_0(GPR_CLOCK_REALTIME);
    if (queue_.AsyncNext(&tag, &ok, past) == grpc::CompletionQueue::GOT_EVENT) Happen(tag, ok);
  }
}

void EventQueue::Notify() {
  absl::MutexLock lock(&mutex_);
  is_notified_ = true;
  changed_.Signal();
}

void EventQueue::RunUntilNotified(Wait wait, const std::function<void()>* while_waiting) {
  const auto next_time = [while_waiting] {
    return while_waiting != nullptr ? absl::Now() + kWhileWaitingInterval : absl::InfiniteFuture();
  };
  absl::Time due = next_time();
  while (true) {
    if (while_waiting != nullptr && absl::Now() >= due) {
      (*while_waiting)();
      due = next_time();
    }
    {
      absl::MutexLock lock(&mutex_);
      bool is_due = false;
      while (!is_notified_ && num_expected() == 0 && !is_due) {
        is_due = changed_.WaitWithTimeout(&mutex_, due - absl::Now());
      }
      if (is_notified_) {
        is_notified_ = false;
        return;
      }
      if (num_expected() == 0) continue;
    }
    TakeOneWithin(due - absl::Now(), wait);
  }
}

void EventQueue::WaitForWork(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  if (!is_notified_ && num_expected() == 0) changed_.WaitWithTimeout(&mutex_, timeout);
  is_notified_ = false;
}

Timer* Timer::Start(EventQueue* queue, absl::Time time, std::function<void()> run) {
  auto* const timer = new Timer(std::move(run));
  queue->Expect();
  timer->alarm_.Set(queue->queue(), absl::ToChronoTime(time), static_cast<Event*>(timer));
  return timer;
}

void Timer::OnEvent(bool /*ok*/) {
  const std::function<void()> run = std::move(run_);
  run();
  delete this;
}

EventThreads::EventThreads(int num_threads, std::function<void()> look_after)
    : look_after_(std::move(look_after)), workers_(static_cast<size_t>(num_threads)) {
  try {
    for (Worker& worker : workers_) {
      worker.thread = std::thread([this, &worker] { Run(worker); });
    }
  } catch (...) {
    Stop();
    throw;
  }
}

EventThreads::~EventThreads() { Stop(); }

void EventThreads::Stop() {
  is_stopping_.store(true, std::memory_order_release);
  for (Worker& worker : workers_) {
    worker.queue.Notify();
    if (worker.thread.joinable()) worker.thread.join();
  }
}

EventQueue* EventThreads::Next() {
  return &workers_[turn_.fetch_add(1, std::memory_order_relaxed) % workers_.size()].queue;
}

EventQueue* EventThreads::Current() {
  return current_threads == this ? current_queue : &workers_.front().queue;
}

void EventThreads::Run(Worker& worker) {
  current_threads = this;
  current_queue = &worker.queue;
  const bool is_first = &worker == &workers_.front();
  while (true) {
    if (worker.queue.num_expected() > 0) {
      worker.queue.TakeOne(Wait::kSleep);
      continue;
    }
    if (is_stopping_.load(std::memory_order_acquire)) return;
    worker.queue.WaitForWork(is_first ? kLookAfterInterval : absl::InfiniteDuration());
    if (is_first && worker.queue.num_expected() == 0) {
      worker.queue.Poll();
      look_after_();
    }
  }
}

}  // namespace swiglu::client
