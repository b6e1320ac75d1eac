// SPDX-License-Identifier: Apache-2.0
//
// The threads that serve callers, as a place to post other work. This is the interface only:
// `server/transport` has the threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/functional/any_invocable.h"

namespace swiglu::server {

// From so many bytes on, it is long work to copy them, to compute on them or to send them.
inline constexpr int64_t kLongWorkBytes = int64_t{512} << 10;

// Whether work takes so long that another thread had better serve callers meanwhile.
enum class WorkLength : uint8_t { kShort, kLong };
inline WorkLength LengthOf(int64_t bytes) {
  return bytes >= kLongWorkBytes ? WorkLength::kLong : WorkLength::kShort;
}

// Thread-safe.
class TaskQueue {
 public:
  using Task = absl::AnyInvocable<void()>;

  virtual ~TaskQueue() = default;
  // Runs `task` once, on whichever of the threads comes to it; tasks may run at the same time.
  // REQUIRES: a call is alive until it has run.
  virtual void Post(WorkLength length, Task task) = 0;
  // Whether the calling thread is one of them.
  virtual bool IsCurrent() const = 0;
  // On one of them, between these two: it does long work.
  virtual void BeginLongWork() = 0;
  virtual void EndLongWork() = 0;
};

// Long work for as long as it lives, if it is long and on one of the queue's threads.
class LongWork {
 public:
  LongWork(TaskQueue& tasks, WorkLength length)
      : tasks_(length == WorkLength::kLong && tasks.IsCurrent() ? &tasks : nullptr) {
    if (tasks_ != nullptr) tasks_->BeginLongWork();
  }
  ~LongWork() {
    if (tasks_ != nullptr) tasks_->EndLongWork();
  }
  LongWork(const LongWork&) = delete;
  LongWork& operator=(const LongWork&) = delete;

 private:
  TaskQueue* const tasks_;
};

}  // namespace swiglu::server
