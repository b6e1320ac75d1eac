// SPDX-License-Identifier: Apache-2.0
//
// Signals by signalfd, faults by eventfd, one thread that polls both.
#include "server/lifecycle.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <utility>

#include "absl/time/clock.h"
#include "server/log/log.h"

namespace swiglu::server {
namespace {

int ToMilliseconds(absl::Duration timeout) {
  const int64_t ms = absl::ToInt64Milliseconds(timeout + absl::Microseconds(999));
  if (timeout == absl::InfiniteDuration()) return -1;
  return static_cast<int>(std::clamp<int64_t>(ms, 0, std::numeric_limits<int>::max()));
}

void Raise(int event_fd) {
  const uint64_t one = 1;
  // An eventfd takes eight bytes or fails at its limit, where it is raised already.
  [[maybe_unused]] const ssize_t written = ::write(event_fd, &one, sizeof(one));
}

bool IsIgnored(int signal_number) {
  struct sigaction action {};
  ::sigaction(signal_number, nullptr, &action);
  return action.sa_handler == SIG_IGN;
}

// What the process takes through a signalfd.
sigset_t TakenSignals() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGTERM);
  ::sigaddset(&set, SIGINT);
  // A blocked signal is taken even where it is ignored.
  if (!IsIgnored(SIGHUP)) ::sigaddset(&set, SIGHUP);
  return set;
}

}  // namespace

StopSource::StopSource(std::function<void()> on_hangup) : on_hangup_(std::move(on_hangup)) {
  const sigset_t set = TakenSignals();
  CHECK(::pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
  // A peer that goes away in the middle of a write is an error of that write, not of the process.
  ::signal(SIGPIPE, SIG_IGN);
  signals_ = ::signalfd(-1, &set, SFD_CLOEXEC);
  faults_ = ::eventfd(0, EFD_CLOEXEC);
  closing_ = ::eventfd(0, EFD_CLOEXEC);
  CHECK(signals_ >= 0 && faults_ >= 0 && closing_ >= 0);
  watcher_ = std::thread([this] { Watch(); });
}

StopSource::~StopSource() {
  Raise(closing_);
  watcher_.join();
  ::close(signals_);
  ::close(faults_);
  ::close(closing_);
}

StopReason StopSource::Wait(absl::Duration timeout) {
  const auto has_reason = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stop_asked_ || device_failed_;
  };
  absl::MutexLock lock(&mutex_);
  mutex_.AwaitWithTimeout(absl::Condition(&has_reason), timeout);
  if (device_failed_) return StopReason::kDeviceFault;
  return std::exchange(stop_asked_, false) ? StopReason::kSignal : StopReason::kTimeout;
}

bool StopSource::device_failed() const {
  absl::MutexLock lock(&mutex_);
  return device_failed_;
}

void StopSource::DeviceFailed(int, DeviceError kind) {
  if (kind != DeviceError::kSticky) return;
  {
    absl::MutexLock lock(&mutex_);
    device_failed_ = true;
  }
  Raise(faults_);
}

void StopSource::Watch() {
  absl::Time end = absl::InfiniteFuture();
  pollfd fds[] = {{closing_, POLLIN, 0}, {signals_, POLLIN, 0}, {faults_, POLLIN, 0}};
  while (true) {
    if (::poll(fds, 3, ToMilliseconds(end - absl::Now())) < 0) continue;  // EINTR
    if ((fds[0].revents & POLLIN) != 0) return;
    if ((fds[1].revents & POLLIN) != 0) TakeSignal();
    if ((fds[2].revents & POLLIN) != 0) {
      end = absl::Now() + kFaultGrace;
      fds[2].fd = -1;  // heard
    }
    if (absl::Now() >= end) {
      LOG(ERROR, "exiting with code {}: {} after a device fault", kExitDeviceFault,
          absl::FormatDuration(kFaultGrace));
      std::_Exit(kExitDeviceFault);
    }
  }
}

void StopSource::TakeSignal() {
  signalfd_siginfo info;
  if (::read(signals_, &info, sizeof(info)) != sizeof(info)) return;
  if (info.ssi_signo == SIGHUP) return on_hangup_();
  if (++num_stop_signals_ > 1) {
    LOG(WARNING, "second signal: exiting at once");
    std::_Exit(kExitFailure);
  }
  LOG(INFO, "received {}", info.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT");
  absl::MutexLock lock(&mutex_);
  stop_asked_ = true;
}

}  // namespace swiglu::server
