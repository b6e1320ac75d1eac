// SPDX-License-Identifier: Apache-2.0
//
// Signals by signalfd, faults by eventfd, one poll for both.
#include "server/lifecycle.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <limits>

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

}  // namespace

StopSource::StopSource() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGTERM);
  ::sigaddset(&set, SIGINT);
  CHECK(::pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
  // A peer that goes away in the middle of a write is an error of that write, not of the process.
  ::signal(SIGPIPE, SIG_IGN);
  signals_ = ::signalfd(-1, &set, SFD_CLOEXEC);
  faults_ = ::eventfd(0, EFD_CLOEXEC);
  closing_ = ::eventfd(0, EFD_CLOEXEC);
  CHECK(signals_ >= 0 && faults_ >= 0 && closing_ >= 0);
}

StopSource::~StopSource() {
  Raise(closing_);
  if (watcher_.joinable()) watcher_.join();
  ::close(signals_);
  ::close(faults_);
  ::close(closing_);
}

StopReason StopSource::Wait(absl::Duration timeout) {
  const absl::Time end = absl::Now() + timeout;
  while (true) {
    pollfd fds[] = {{signals_, POLLIN, 0}, {faults_, POLLIN, 0}};
    const int ready = ::poll(fds, 2, ToMilliseconds(end - absl::Now()));
    if (ready < 0) continue;  // EINTR
    if (ready == 0) return StopReason::kTimeout;
    if ((fds[1].revents & POLLIN) != 0) return StopReason::kDeviceFault;
    signalfd_siginfo info;
    if (::read(signals_, &info, sizeof(info)) == sizeof(info)) {
      LOG(INFO, "received {}", info.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT");
      return StopReason::kSignal;
    }
  }
}

void StopSource::ExitOnNextSignal() {
  watcher_ = std::thread([this] {
    pollfd fds[] = {{signals_, POLLIN, 0}, {closing_, POLLIN, 0}};
    while (::poll(fds, 2, -1) < 0) {
    }
    if ((fds[0].revents & POLLIN) == 0) return;
    LOG(WARNING, "second signal: exiting at once");
    ::_exit(1);
  });
}

void StopSource::DeviceFailed(int, DeviceError kind) {
  if (kind == DeviceError::kSticky) Raise(faults_);
}

}  // namespace swiglu::server
