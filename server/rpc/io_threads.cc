// SPDX-License-Identifier: Apache-2.0
//
// The polling loop, the turns and the look at the load.
#include "server/rpc/io_threads.h"

#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <utility>

#include "server/log/log.h"

namespace swiglu::server {
namespace {

// How often the load is looked at: often enough for a burst, seldom enough for its figures to mean
// something.
constexpr std::chrono::milliseconds kLookInterval{4};

// Small requests gain nothing from more; threads beyond are for long work.
constexpr int kMostQueues = 4;

// Of the calling thread: whose it is, which queue it polls, and since when it does long work.
thread_local const IoThreads* t_owner = nullptr;
thread_local IoQueue* t_queue = nullptr;
thread_local std::chrono::steady_clock::time_point t_long_since;

}  // namespace

int IoThreads::NumQueues(int num_threads) {
  return std::clamp(num_threads * 3 / 4, 1, kMostQueues);
}

IoThreads::IoThreads(Queues queues, int num_threads, Policy policy)
    : policy_(std::move(policy)), looked_at_(Clock::now()) {
  CHECK(!queues.empty());
  for (auto& queue : queues) queues_.push_back(std::make_unique<IoQueue>(this, std::move(queue)));
  absl::MutexLock lock(&mutex_);
  for (int i = 0; i < num_threads; ++i) {
    threads_.emplace_back([this] { Run(); });
    clockid_t clock = 0;
    CHECK(pthread_getcpuclockid(threads_.back().native_handle(), &clock) == 0);
    cpu_clocks_.push_back(clock);
  }
}

IoThreads::~IoThreads() { CHECK(threads_.empty()); }

IoQueue& IoThreads::Bind() {
  const size_t turn = num_bound_.fetch_add(1, std::memory_order_relaxed);
  IoQueue& queue = *queues_[turn % target_pollers_.load(std::memory_order_relaxed)];
  if (queue.Bind()) {
    absl::MutexLock lock(&mutex_);
    turn_free_.Signal();
  }
  return queue;
}

void IoThreads::Shutdown() {
  for (const auto& queue : queues_) queue->queue()->Shutdown();
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    turn_free_.SignalAll();
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

bool IoThreads::IsOwnThread() const { return t_owner == this; }

void IoThreads::Run() {
  t_owner = this;
  while ((t_queue = AwaitTurn()) != nullptr) {
    Poll(*t_queue);
    YieldTurn(*t_queue);
  }
}

void IoThreads::Poll(IoQueue& queue) {
  void* tag = nullptr;
  bool ok = false;
  do {
    if (!queue.queue()->Next(&tag, &ok)) {
      absl::MutexLock lock(&mutex_);
      queue.is_ended_ = true;
      return;
    }
    static_cast<Event*>(tag)->Happen(ok);
    Adjust();
  } while (KeepsTurn(queue));
}

bool IoThreads::KeepsTurn(const IoQueue& queue) const {
  if (queue.num_calls() == 0) return false;
  return queue.num_pollers_.load(std::memory_order_relaxed) == 1 ||
         num_pollers_.load(std::memory_order_relaxed) <=
             target_pollers_.load(std::memory_order_relaxed);
}

IoQueue* IoThreads::AwaitTurn() {
  absl::MutexLock lock(&mutex_);
  while (true) {
    if (IoQueue* const queue = FindTurn()) {
      num_pollers_.fetch_add(1, std::memory_order_relaxed);
      return queue;
    }
    // Those that still poll see to what is left.
    if (stopping_) return nullptr;
    turn_free_.Wait(&mutex_);
  }
}

IoQueue* IoThreads::FindTurn() {
  if (IoQueue* const queue = ClaimLonelyQueue()) return queue;
  if (stopping_ || num_pollers_.load(std::memory_order_relaxed) >=
                       target_pollers_.load(std::memory_order_relaxed)) {
    return nullptr;
  }
  const auto busiest = std::max_element(
      queues_.begin(), queues_.end(),
      [](const auto& a, const auto& b) { return a->num_calls() < b->num_calls(); });
  if ((*busiest)->num_calls() == 0) return nullptr;
  (*busiest)->num_pollers_.fetch_add(1, std::memory_order_relaxed);
  return busiest->get();
}

IoQueue* IoThreads::ClaimLonelyQueue() {
  for (const auto& queue : queues_) {
    const bool needs_thread = stopping_ ? !queue->is_ended_ : queue->num_calls() > 0;
    // A thread that comes back from long work may take it, too.
    int none = 0;
    if (needs_thread && queue->num_pollers_.compare_exchange_strong(none, 1)) return queue.get();
  }
  return nullptr;
}

void IoThreads::YieldTurn(IoQueue& queue) {
  absl::MutexLock lock(&mutex_);
  queue.num_pollers_.fetch_sub(1, std::memory_order_relaxed);
  num_pollers_.fetch_sub(1, std::memory_order_relaxed);
  turn_free_.Signal();
}

void IoThreads::BeginLongWork() {
  t_long_since = Clock::now();
  YieldTurn(*t_queue);
}

void IoThreads::EndLongWork() {
  const std::chrono::nanoseconds took = Clock::now() - t_long_since;
  long_work_ns_.fetch_add(took.count(), std::memory_order_relaxed);
  // Whether it polls on is decided when it is about to.
  t_queue->num_pollers_.fetch_add(1, std::memory_order_relaxed);
  num_pollers_.fetch_add(1, std::memory_order_relaxed);
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
  const int target = policy_(load, static_cast<int>(queues_.size()));
  target_pollers_.store(target, std::memory_order_relaxed);
  if (target > load.num_pollers) turn_free_.Signal();
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
