// SPDX-License-Identifier: Apache-2.0
//
// A queue that passes work to the I/O threads, which serve callers. This file is only the
// interface. The threads are in `server/transport`.
#pragma once

#include <cstdint>

#include "absl/functional/any_invocable.h"

namespace swiglu::server {

// Work is long if it copies, computes on or sends at least this many bytes.
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
  // Runs `task` once, on any I/O thread. Tasks may run at the same time. REQUIRES: at least one
  // call stays alive until `task` has run.
  virtual void Post(WorkLength length, Task task) = 0;
  // Whether the calling thread is an I/O thread.
  virtual bool IsCurrent() const = 0;
  // Call these when the calling thread begins, and ends, long work. REQUIRES: it is an I/O thread.
  virtual void BeginLongWork() = 0;
  virtual void EndLongWork() = 0;
};

// While this object lives, the calling thread counts as doing long work. Does nothing if the work
// is short, or if the thread is not an I/O thread.
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
