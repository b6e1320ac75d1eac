// SPDX-License-Identifier: Apache-2.0
//
// Writes down how the loads of one MLP's weights go, for the metrics.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/core/clock.h"
#include "server/core/mlp_figures.h"

namespace swiglu::server {

// Thread-safe. One load at a time: `Begin`, then `Count` on any threads, then `End`.
class LoadRecord {
 public:
  void Begin();
  // `bytes` more of the files have been read.
  void Count(int64_t bytes) { loaded_bytes_.fetch_add(bytes, std::memory_order_relaxed); }
  // The load has ended with `status`. Returns how long it took.
  std::chrono::nanoseconds End(const absl::Status& status);

  LoadFigures figures() const;

 private:
  std::atomic<int64_t> loaded_bytes_{0};
  mutable absl::Mutex mutex_;
  Clock::time_point begun_ ABSL_GUARDED_BY(mutex_);
  LoadFigures figures_ ABSL_GUARDED_BY(mutex_);  // all but `loaded_bytes`
};

}  // namespace swiglu::server
