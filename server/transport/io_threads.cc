// SPDX-License-Identifier: Apache-2.0
//
// The polling loop, the turns, the look at the load and the watchdog.
#include "server/transport/io_threads.h"

#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <utility>

#include "absl/time/time.h"
#include "server/log/log.h"

namespace swiglu::server {
namespace {

// How often the load is looked at: often enough for a burst, seldom enough for its figures to mean
// something.
constexpr std::chrono::milliseconds kLookInterval{4};

// Small requests gain nothing from more; threads beyond are for long work.
constexpr int kMostQueues = 4;

// How long an event may lie in a queue whose thread is away. gRPC wakes nobody for it: it takes
// that thread, which it has told before, to be about to look.
constexpr std::chrono::milliseconds kMissedWakeUp{5};

// How often the watchdog looks: an idle server wakes up so often.
constexpr std::chrono::milliseconds kWatchInterval{20};

std::chrono::nanoseconds Read(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

}  // namespace

thread_local const IoThreads* IoThreads::t_owner = nullptr;
thread_local IoThreads::Worker* IoThreads::t_worker = nullptr;

int IoThreads::NumQueues(int num_threads) {
  return std::clamp(num_threads * 3 / 4, 1, kMostQueues);
}

IoThreads::IoThreads(Queues queues, int num_threads, Policy policy, BusyWaits busy_waits)
    : policy_(std::move(policy)),
      busy_waits_(std::move(busy_waits)),
      looked_at_(Clock::now()),
      num_threads_(num_threads) {
  CHECK(!queues.empty());
  for (auto& queue : queues) queues_.push_back(std::make_unique<IoQueue>(this, std::move(queue)));
  for (int i = 0; i < num_threads + kNumReserves; ++i) {
    workers_.push_back(std::make_unique<Worker>());
  }
  absl::MutexLock lock(&mutex_);
  for (const auto& worker : workers_) {
    threads_.emplace_back([this, worker = worker.get()] { Run(*worker); });
    CHECK(pthread_getcpuclockid(threads_.back().native_handle(), &worker->cpu_clock) == 0);
  }
  watchdog_ = std::thread([this] { Watch(); });
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
    stop_.Signal();
  }
  watchdog_.join();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

bool IoThreads::IsOwnThread() const { return t_owner == this; }

void IoThreads::Run(Worker& worker) {
  t_owner = this;
  t_worker = &worker;
  while (AwaitTurn(worker)) {
    Poll(worker);
    YieldTurn(worker, Worker::State::kAsleep);
  }
}

void IoThreads::Poll(Worker& worker) {
  using Status = grpc::CompletionQueue::NextStatus;
  IoQueue& queue = *worker.queue;
  void* tag = nullptr;
  bool ok = false;
  do {
    const gpr_timespec deadline = NextDeadline(queue);
    const Status status = queue.queue()->AsyncNext(&tag, &ok, deadline);
    CountStep(worker);
    if (status == Status::SHUTDOWN) {
      absl::MutexLock lock(&mutex_);
      queue.is_ended_ = true;
      return;
    }
    if (status == Status::GOT_EVENT) {
      static_cast<Event*>(tag)->OnEvent(ok);
      CountStep(worker);
    }
    Adjust();
  } while (KeepsTurn(queue));
}

gpr_timespec IoThreads::NextDeadline(const IoQueue& queue) {
  if (queue.num_away_.load(std::memory_order_relaxed) == 0)
    return gpr_inf_future(GPR_CLOCK_REALTIME);
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                      gpr_time_from_millis(kMissedWakeUp.count(), GPR_TIMESPAN));
}

bool IoThreads::KeepsTurn(const IoQueue& queue) const {
  if (queue.num_calls() == 0) return false;
  return queue.num_pollers_.load(std::memory_order_relaxed) <= PollersNeeded(queue) ||
         num_pollers_.load(std::memory_order_relaxed) <=
             target_pollers_.load(std::memory_order_relaxed);
}

bool IoThreads::AwaitTurn(Worker& worker) {
  absl::MutexLock lock(&mutex_);
  while ((worker.queue = FindTurn()) == nullptr) {
    // Those that still poll see to what is left.
    if (stopping_) return false;
    turn_free_.Wait(&mutex_);
  }
  ++num_awake_;
  num_pollers_.fetch_add(1, std::memory_order_relaxed);
  worker.num_steps.fetch_add(1, std::memory_order_relaxed);
  worker.state.store(Worker::State::kPolling);
  return true;
}

IoQueue* IoThreads::FindTurn() {
  if (!stopping_ && num_awake_ >= num_threads_) return nullptr;
  if (IoQueue* const queue = ClaimUnpolledQueue()) return queue;
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

IoQueue* IoThreads::ClaimUnpolledQueue() {
  for (const auto& queue : queues_) {
    const bool needs_thread = stopping_ ? !queue->is_ended_ : queue->num_calls() > 0;
    // A thread that comes back from long work may take it, too.
    int pollers = queue->num_pollers_.load(std::memory_order_relaxed);
    if (needs_thread && pollers < PollersNeeded(*queue) &&
        queue->num_pollers_.compare_exchange_strong(pollers, pollers + 1)) {
      return queue.get();
    }
  }
  return nullptr;
}

int IoThreads::PollersNeeded(const IoQueue& queue) {
  // One that was there before would sleep through what comes; the next one knows better.
  return queue.num_away_.load(std::memory_order_relaxed) == 0 ? 1 : 2;
}

void IoThreads::CountPoller(IoQueue& queue, int change) {
  queue.num_pollers_.fetch_add(change, std::memory_order_relaxed);
  num_pollers_.fetch_add(change, std::memory_order_relaxed);
}

void IoThreads::YieldTurn(Worker& worker, Worker::State next) {
  absl::MutexLock lock(&mutex_);
  if (worker.state.load() == Worker::State::kAway) ComeBack(worker);
  worker.state.store(next);
  worker.since = Clock::now();
  CountPoller(*worker.queue, -1);
  if (next == Worker::State::kAsleep) --num_awake_;
  turn_free_.Signal();
}

void IoThreads::CountStep(Worker& worker) {
  // No other thread writes it.
  worker.num_steps.store(worker.num_steps.load(std::memory_order_relaxed) + 1,
                         std::memory_order_relaxed);
  if (worker.state.load(std::memory_order_relaxed) != Worker::State::kAway) return;
  absl::MutexLock lock(&mutex_);
  ComeBack(worker);
}

void IoThreads::ComeBack(Worker& worker) {
  const std::chrono::nanoseconds took = Clock::now() - worker.since;
  long_work_ns_.fetch_add(took.count(), std::memory_order_relaxed);
  CountPoller(*worker.queue, 1);
  worker.queue->num_away_.fetch_sub(1, std::memory_order_relaxed);
  ++num_awake_;
  worker.state.store(Worker::State::kPolling);
}

void IoThreads::Watch() {
  absl::MutexLock lock(&mutex_);
  while (!stopping_) {
    stop_.WaitWithTimeout(&mutex_, absl::FromChrono(kWatchInterval));
    const Clock::time_point now = Clock::now();
    for (const auto& worker : workers_) WatchWorker(*worker, now);
  }
}

void IoThreads::WatchWorker(Worker& worker, Clock::time_point now) {
  Worker::State state = worker.state.load();
  if (state != Worker::State::kPolling ||
      !worker.progress.IsKept(worker.num_steps.load(std::memory_order_relaxed),
                              Read(worker.cpu_clock), now) ||
      !worker.state.compare_exchange_strong(state, Worker::State::kAway)) {
    return;
  }
  worker.since = now;
  CountPoller(*worker.queue, -1);
  worker.queue->num_away_.fetch_add(1, std::memory_order_relaxed);
  --num_awake_;
  turn_free_.Signal();
}

void IoThreads::BeginLongWork() {
  if (t_worker->num_long_works++ > 0) return;
  YieldTurn(*t_worker, Worker::State::kLongWork);
}

void IoThreads::EndLongWork() {
  if (--t_worker->num_long_works > 0) return;
  const std::chrono::nanoseconds took = Clock::now() - t_worker->since;
  long_work_ns_.fetch_add(took.count(), std::memory_order_relaxed);
  // Whether it polls on is decided when it is about to.
  CountPoller(*t_worker->queue, 1);
  CountStep(*t_worker);  // for the watchdog, which did not look meanwhile
  t_worker->state.store(Worker::State::kPolling);
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
  std::chrono::nanoseconds long_work(long_work_ns_.load(std::memory_order_relaxed));
  for (const auto& worker : workers_) {
    totals.busy_threads += std::chrono::duration<double>(Read(worker->cpu_clock)).count();
    if (worker->state.load() == Worker::State::kAway) long_work += Clock::now() - worker->since;
  }
  totals.busy_threads -= std::chrono::duration<double>(busy_waits_()).count();
  totals.long_threads = std::chrono::duration<double>(long_work).count();
  return totals;
}

}  // namespace swiglu::server
