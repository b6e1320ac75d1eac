// SPDX-License-Identifier: Apache-2.0
//
// The thread's loop. See the header.
#include "server/regions/region_thread.h"

#include <chrono>
#include <utility>

#include "absl/time/time.h"

namespace swiglu::server {
namespace {

// How often abandoned regions are looked for.
constexpr std::chrono::seconds kInterval{1};

}  // namespace

RegionThread::RegionThread(RegionLimits limits, RegionOpener* opener)
    : registry_(limits, opener, [this] {
        absl::MutexLock lock(&mutex_);
        has_released_ = true;
      }) {
  if (registry_.is_enabled()) thread_ = std::thread([this] { Run(); });
}

RegionThread::~RegionThread() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void RegionThread::Post(Task task) {
  absl::MutexLock lock(&mutex_);
  tasks_.push_back(std::move(task));
}

void RegionThread::Run() {
  Clock::time_point next_look = Clock::now() + kInterval;
  bool is_last = false;
  while (!is_last) {
    std::deque<Task> tasks;
    {
      const auto has_work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopping_ || has_released_ || !tasks_.empty();
      };
      absl::MutexLock lock(&mutex_);
      mutex_.AwaitWithTimeout(absl::Condition(&has_work),
                              absl::FromChrono(next_look - Clock::now()));
      is_last = stopping_;
      has_released_ = false;
      tasks.swap(tasks_);
    }
    for (Task& task : tasks) std::exchange(task, nullptr)(registry_);
    const Clock::time_point now = Clock::now();
    if (now >= next_look) {
      registry_.DropAbandoned(now);
      next_look = now + kInterval;
    }
    registry_.CloseReleased();
  }
}

}  // namespace swiglu::server
