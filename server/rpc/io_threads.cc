// SPDX-License-Identifier: Apache-2.0
//
// The polling loop and the look at its load.
#include "server/rpc/io_threads.h"

#include <time.h>

#include <utility>

#include "grpcpp/alarm.h"
#include "server/log/log.h"
#include "server/rpc/poller_count.h"

namespace swiglu::server {
namespace {

// How often the load is looked at: often enough for a burst, seldom enough for its figures to mean
// something.
constexpr std::chrono::milliseconds kLookInterval{4};

struct PostedTask final : Event {
  explicit PostedTask(TaskQueue::Task what) : task(std::move(what)) {}
  void Happen(bool) override {
    task();
    delete this;
  }
  TaskQueue::Task task;
  grpc::Alarm alarm;
};

}  // namespace

IoThreads::IoThreads(std::unique_ptr<grpc::ServerCompletionQueue> queue, int max_pollers)
    : queue_(std::move(queue)), max_pollers_(max_pollers), looked_at_(Clock::now()) {
  absl::MutexLock lock(&mutex_);
  for (int i = 0; i < max_pollers_; ++i) {
    threads_.emplace_back([this, i] { Run(i); });
    clockid_t clock = 0;
    CHECK(pthread_getcpuclockid(threads_.back().native_handle(), &clock) == 0);
    cpu_clocks_.push_back(clock);
  }
}

IoThreads::~IoThreads() { CHECK(threads_.empty()); }

void IoThreads::Post(Task task) {
  auto* posted = new PostedTask(std::move(task));
  posted->alarm.Set(queue_.get(), gpr_now(GPR_CLOCK_MONOTONIC), static_cast<Event*>(posted));
}

void IoThreads::Shutdown() {
  queue_->Shutdown();
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.SignalAll();
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void IoThreads::Run(int index) {
  void* tag = nullptr;
  bool ok = false;
  while (AwaitTurn(index)) {
    if (!queue_->Next(&tag, &ok)) return;
    static_cast<Event*>(tag)->Happen(ok);
    Adjust();
  }
}

bool IoThreads::AwaitTurn(int index) {
  if (index < num_pollers_.load(std::memory_order_relaxed)) return true;
  absl::MutexLock lock(&mutex_);
  while (index >= num_pollers_.load(std::memory_order_relaxed)) {
    // The polling threads see to it that the queue ends empty.
    if (stopping_) return false;
    changed_.Wait(&mutex_);
  }
  return true;
}

void IoThreads::Adjust() {
  const Clock::time_point now = Clock::now();
  if (now.time_since_epoch().count() < next_look_.load(std::memory_order_relaxed)) return;
  if (!mutex_.TryLock()) return;
  next_look_.store((now + kLookInterval).time_since_epoch().count(), std::memory_order_relaxed);
  const std::chrono::nanoseconds busy_time = BusyTime();
  const std::chrono::duration<double> busy = busy_time - std::exchange(busy_time_, busy_time);
  const std::chrono::duration<double> passed = now - std::exchange(looked_at_, now);
  const int before = num_pollers_.load(std::memory_order_relaxed);
  const int after = ChoosePollerCount({before, busy / passed}, max_pollers_);
  num_pollers_.store(after, std::memory_order_relaxed);
  if (after > before) changed_.SignalAll();
  mutex_.Unlock();
}

std::chrono::nanoseconds IoThreads::BusyTime() {
  std::chrono::nanoseconds sum{0};
  for (const clockid_t clock : cpu_clocks_) {
    timespec time{};
    clock_gettime(clock, &time);
    sum += std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
  }
  return sum;
}

}  // namespace swiglu::server
