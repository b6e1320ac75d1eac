// SPDX-License-Identifier: Apache-2.0
//
// Ends a call from another thread.
#pragma once

#include <atomic>
#include <functional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace swiglu::client {

// Thread-safe.
class Cancellation {
 public:
  Cancellation() = default;
  Cancellation(const Cancellation&) = delete;
  Cancellation& operator=(const Cancellation&) = delete;

  // Asks the call to end. It ends soon with CANCELLED, unless it has just ended otherwise.
  void Cancel();

  // Whether Cancel was called.
  bool is_cancelled() const { return is_cancelled_.load(std::memory_order_acquire); }

  // Sets what Cancel does. One thing at a time: what works on the call now sets it. If the call is
  // cancelled already, runs `stop` at once. `stop` runs under a lock, so it must not call back.
  void SetStop(std::function<void()> stop);
  // After this returns, what was set does not run any more.
  void ClearStop();

 private:
  std::atomic<bool> is_cancelled_{false};
  absl::Mutex mutex_;
  std::function<void()> stop_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace swiglu::client
