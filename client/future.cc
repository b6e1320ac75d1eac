// SPDX-License-Identifier: Apache-2.0
//
// The wait for a result.
#include "swiglu/future.h"

#include "absl/time/clock.h"
#include "client/fork_guard.h"

namespace swiglu::client {

int FutureState::CurrentProcess() { return ForkGuard::NumForks(); }

bool FutureState::IsOfParent() const { return process_ != CurrentProcess(); }

void FutureState::Wait() {
  if (IsReady()) return;
  absl::MutexLock lock(&mutex_);
  while (!IsReady()) ready_.Wait(&mutex_);
}

bool FutureState::WaitFor(absl::Duration timeout) {
  if (IsReady()) return true;
  const absl::Time deadline = absl::Now() + timeout;
  absl::MutexLock lock(&mutex_);
  while (!IsReady()) {
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) return false;
    ready_.WaitWithTimeout(&mutex_, left);
  }
  return true;
}

void FutureState::SetReady() {
  absl::MutexLock lock(&mutex_);
  is_ready_.store(true, std::memory_order_release);
  ready_.SignalAll();
}

}  // namespace swiglu::client
