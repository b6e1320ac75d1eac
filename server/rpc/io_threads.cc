// SPDX-License-Identifier: Apache-2.0
//
// The polling loop, the turns and the look at the load.
#include "server/rpc/io_threads.h"

#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <utility>

#include "grpcpp/alarm.h"
#include "server/log/log.h"
#include "server/rpc/call.h"

namespace swiglu::server {
namespace {

// How often the load is looked at: often enough for a burst, seldom enough for its figures to mean
// something.
constexpr std::chrono::milliseconds kLookInterval{4};

struct PostedTask final : Event {
  PostedTask(TaskQueue* queue, WorkLength its_length, TaskQueue::Task what)
      : tasks(queue), length(its_length), task(std::move(what)) {}
  void Happen(bool) override {
    {
      const LongWork work(*tasks, length);
      task();
      task = nullptr;
    }
    delete this;
  }
  TaskQueue* const tasks;
  const WorkLength length;
  TaskQueue::Task task;
  grpc::Alarm alarm;
};

// Of the calling thread: whose it is, and since when it does long work.
thread_local const IoThreads* t_owner = nullptr;
thread_local std::chrono::steady_clock::time_point t_long_since;

}  // namespace

IoThreads::IoThreads(std::unique_ptr<grpc::ServerCompletionQueue> queue, int num_threads)
    : queue_(std::move(queue)),
      max_pollers_(std::max(1, num_threads * 3 / 4)),
      looked_at_(Clock::now()) {
  absl::MutexLock lock(&mutex_);
  for (int i = 0; i < num_threads; ++i) {
    threads_.emplace_back([this] { Run(); });
    clockid_t clock = 0;
    CHECK(pthread_getcpuclockid(threads_.back().native_handle(), &clock) == 0);
    cpu_clocks_.push_back(clock);
  }
}

IoThreads::~IoThreads() { CHECK(threads_.empty()); }

void IoThreads::Post(WorkLength length, Task task) {
  auto* posted = new PostedTask(this, length, std::move(task));
  // A time that has passed for sure: one that has just come waits for the next look at the timers.
  posted->alarm.Set(queue_.get(), gpr_inf_past(GPR_CLOCK_MONOTONIC), static_cast<Event*>(posted));
}

bool IoThreads::IsCurrent() const { return t_owner == this; }

void IoThreads::BeginLongWork() {
  t_long_since = Clock::now();
  YieldTurn();
}

void IoThreads::EndLongWork() {
  const std::chrono::nanoseconds took = Clock::now() - t_long_since;
  long_work_ns_.fetch_add(took.count(), std::memory_order_relaxed);
  // Whether it polls on is decided when it is about to.
  num_pollers_.fetch_add(1, std::memory_order_relaxed);
}

void IoThreads::Shutdown() {
  queue_->Shutdown();
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    turn_yielded_.SignalAll();
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void IoThreads::Run() {
  t_owner = this;
  void* tag = nullptr;
  bool ok = false;
  while (AwaitTurn()) {
    do {
      if (!queue_->Next(&tag, &ok)) return YieldTurn();
      static_cast<Event*>(tag)->Happen(ok);
      Adjust();
    } while (num_pollers_.load(std::memory_order_relaxed) <=
             target_pollers_.load(std::memory_order_relaxed));
    YieldTurn();
  }
}

bool IoThreads::AwaitTurn() {
  absl::MutexLock lock(&mutex_);
  while (num_pollers_.load(std::memory_order_relaxed) >=
         target_pollers_.load(std::memory_order_relaxed)) {
    // The pollers see to it that the queue ends empty.
    if (stopping_) return false;
    turn_yielded_.Wait(&mutex_);
  }
  num_pollers_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

void IoThreads::YieldTurn() {
  absl::MutexLock lock(&mutex_);
  num_pollers_.fetch_sub(1, std::memory_order_relaxed);
  turn_yielded_.Signal();
}

void IoThreads::Adjust() {
  if (Clock::now().time_since_epoch().count() < next_look_.load(std::memory_order_relaxed)) return;
  if (!mutex_.TryLock()) return;
  // Read under the lock, so that it is after the last look.
  const Clock::time_point now = Clock::now();
  next_look_.store((now + kLookInterval).time_since_epoch().count(), std::memory_order_relaxed);
  if (now - looked_at_ < kLookInterval) return mutex_.Unlock();
  const PollerLoad totals = Totals();
  const std::chrono::duration<double> passed = now - std::exchange(looked_at_, now);
  const PollerLoad load{totals.num_pollers,
                        (totals.busy_threads - totals_.busy_threads) / passed.count(),
                        (totals.long_threads - totals_.long_threads) / passed.count()};
  totals_ = totals;
  const int target = ChoosePollerCount(load, max_pollers_);
  if (target > target_pollers_.exchange(target, std::memory_order_relaxed)) {
    turn_yielded_.Signal();
  }
  mutex_.Unlock();
}

PollerLoad IoThreads::Totals() {
  PollerLoad totals{target_pollers_.load(std::memory_order_relaxed)};
  for (const clockid_t clock : cpu_clocks_) {
    timespec time{};
    clock_gettime(clock, &time);
    totals.busy_threads +=
        static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  }
  totals.long_threads = 1e-9 * static_cast<double>(long_work_ns_.load(std::memory_order_relaxed));
  return totals;
}

}  // namespace swiglu::server
