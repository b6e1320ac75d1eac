// SPDX-License-Identifier: Apache-2.0
//
// An eventfd for each notifier, and one wake-up for all that ended before it was taken.
#include "client/python/completion.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <system_error>

#include "absl/time/clock.h"

namespace swiglu::python {

Notifier::Notifier() : descriptor_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (descriptor_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
}

Notifier::~Notifier() { close(descriptor_); }

void Notifier::Push(int64_t id) {
  absl::MutexLock lock(&mutex_);
  ids_.push_back(id);
  if (ids_.size() > 1) return;
  // It cannot fail: the counter is far from its end.
  [[maybe_unused]] const int result = eventfd_write(descriptor_, 1);
}

std::vector<int64_t> Notifier::Take() {
  absl::MutexLock lock(&mutex_);
  eventfd_t count = 0;
  // It fails if there was nothing.
  [[maybe_unused]] const int result = eventfd_read(descriptor_, &count);
  return std::exchange(ids_, {});
}

void Completion::EndOne() {
  if (num_left_.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
  absl::MutexLock lock(&mutex_);
  is_ready_.store(true, std::memory_order_release);
  ready_.SignalAll();
  for (const auto& [notifier, id] : watchers_) notifier->Push(id);
  watchers_.clear();
}

bool Completion::WaitFor(absl::Duration timeout) {
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

void Completion::Cancel() {
  // The last ones first, because they may wait for the end of others, and would then be sent
  // together and could not be cancelled any more.
  for (size_t call = num_calls_; call > 0; --call) ends_[call - 1].cancellation.Cancel();
}

void Completion::Watch(std::shared_ptr<Notifier> notifier, int64_t id) {
  absl::MutexLock lock(&mutex_);
  if (IsReady()) return notifier->Push(id);
  watchers_.emplace_back(std::move(notifier), id);
}

}  // namespace swiglu::python
