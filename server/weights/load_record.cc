// SPDX-License-Identifier: Apache-2.0
//
// Counts and times of loads. See the header.
#include "server/weights/load_record.h"

#include "absl/time/clock.h"

namespace swiglu::server {
namespace {

LoadResult ResultOf(const absl::Status& status) {
  if (status.ok()) return LoadResult::kSuccess;
  return absl::IsCancelled(status) ? LoadResult::kCancelled : LoadResult::kFailure;
}

}  // namespace

void LoadRecord::Begin() {
  absl::MutexLock lock(&mutex_);
  figures_.is_loading = true;
  begun_ = Clock::now();
  loaded_bytes_.store(0, std::memory_order_relaxed);
}

std::chrono::nanoseconds LoadRecord::End(const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  const std::chrono::nanoseconds duration = Clock::now() - begun_;
  figures_.is_loading = false;
  ++figures_.num_ended[static_cast<size_t>(ResultOf(status))];
  if (status.ok()) {
    figures_.last_success = absl::Now();
    figures_.last_duration = duration;
  }
  return duration;
}

LoadFigures LoadRecord::figures() const {
  absl::MutexLock lock(&mutex_);
  LoadFigures figures = figures_;
  figures.loaded_bytes = loaded_bytes_.load(std::memory_order_relaxed);
  return figures;
}

}  // namespace swiglu::server
