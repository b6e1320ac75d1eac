// SPDX-License-Identifier: Apache-2.0
//
// A queue that passes work to the threads that serve callers. This is the interface only:
// `server/transport` has the threads.
#pragma once

#include <cstdint>

#include "absl/functional/any_invocable.h"

namespace swiglu::server {

// Copying, computing on or sending this many bytes, or more, is long work.
inline constexpr int64_t kLongWorkBytes = int64_t{512} << 10;

// Whether work takes so long that another thread should serve callers meanwhile.
enum class WorkLength : uint8_t { kShort, kLong };
inline WorkLength LengthOf(int64_t bytes) {
  return bytes >= kLongWorkBytes ? WorkLength::kLong : WorkLength::kShort;
}

// Thread-safe.
class TaskQueue {
 public:
  using Task = absl::AnyInvocable<void()>;

  virtual ~TaskQueue() = default;
  // Runs `task` once, on any of the threads. Tasks may run at the same time. REQUIRES: at least one
  // call stays alive until `task` has run.
  virtual void Post(WorkLength length, Task task) = 0;
  // Whether the calling thread is one of the threads that serve callers.
  virtual bool IsCurrent() const = 0;
  // Between these two calls the calling thread does long work. REQUIRES: it is one of the threads
  // that serve callers.
  virtual void BeginLongWork() = 0;
  virtual void EndLongWork() = 0;
};

// Marks the calling thread as doing long work while this object lives. Does nothing if the work is
// short, or the thread is not one of the queue's.
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
