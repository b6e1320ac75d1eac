// SPDX-License-Identifier: Apache-2.0
//
// The lock makes ClearStop wait for a stop that runs.
#include "swiglu/cancellation.h"

#include <utility>

namespace swiglu::client {

void Cancellation::Cancel() {
  absl::MutexLock lock(&mutex_);
  is_cancelled_.store(true, std::memory_order_release);
  if (stop_) stop_();
}

void Cancellation::SetStop(std::function<void()> stop) {
  absl::MutexLock lock(&mutex_);
  stop_ = std::move(stop);
  if (is_cancelled()) stop_();
}

void Cancellation::ClearStop() {
  absl::MutexLock lock(&mutex_);
  stop_ = nullptr;
}

}  // namespace swiglu::client
