// SPDX-License-Identifier: Apache-2.0
//
// Signals by signalfd, faults by eventfd, and a thread that polls both.
#include "server/lifecycle.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <new>
#include <system_error>
#include <utility>

#include "absl/time/clock.h"
#include "server/log/log.h"

namespace swiglu::server {
namespace {

int PollTimeout(absl::Duration timeout) {
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

const char* NameOf(int stop_signal) { return stop_signal == SIGTERM ? "SIGTERM" : "SIGINT"; }

sigset_t SetOf(std::initializer_list<int> signals) {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal_number : signals) ::sigaddset(&set, signal_number);
  return set;
}

// A signalfd that takes these from every thread that is made from here on.
int Take(const sigset_t& signals) {
  CHECK(::pthread_sigmask(SIG_BLOCK, &signals, nullptr) == 0);
  const int taken = ::signalfd(-1, &signals, SFD_CLOEXEC);
  CHECK(taken >= 0);
  return taken;
}

}  // namespace

void ExitAfter(absl::FunctionRef<void()> last_words, int code) {
  last_words();
  logging::Flush(logging::kLastWordsLimit);
  std::_Exit(code);
}

void EndOnExceptions() {
  std::set_terminate([] {
    try {
      // There is one, unless a thread was left without being waited for.
      if (std::current_exception() != nullptr) std::rethrow_exception(std::current_exception());
    } catch (const std::bad_alloc&) {
      ExitAfter([] { LOG(ERROR, "exiting: out of memory"); }, kExitFailure);
    } catch (const std::system_error& error) {
      ExitAfter([&error] { LOG(ERROR, "exiting: {}", error.what()); }, kExitFailure);
    } catch (const std::exception& error) {
      LOG(ERROR, "aborting: an exception: {}", error.what());
    } catch (...) {
      LOG(ERROR, "aborting: an exception");
    }
    std::abort();
  });
}

StopSource::StopSource(std::function<void()> on_hangup) : on_hangup_(std::move(on_hangup)) {
  // A peer that goes away in the middle of a write is an error of that write, not of the process.
  ::signal(SIGPIPE, SIG_IGN);
  stop_signals_ = Take(SetOf({SIGTERM, SIGINT}));
  // A blocked signal is taken even where it is ignored.
  hangups_ = Take(IsIgnored(SIGHUP) ? SetOf({}) : SetOf({SIGHUP}));
  faults_ = ::eventfd(0, EFD_CLOEXEC);
  closing_ = ::eventfd(0, EFD_CLOEXEC);
  CHECK(faults_ >= 0 && closing_ >= 0);
  watcher_ = std::thread([this] { Watch(); });
}

StopSource::~StopSource() {
  Raise(closing_);
  watcher_.join();
  ::close(stop_signals_);
  ::close(hangups_);
  ::close(faults_);
  ::close(closing_);
}

void StopSource::BeginServing() {
  absl::MutexLock lock(&mutex_);
  is_serving_ = true;
}

StopReason StopSource::Wait(absl::Duration timeout) {
  const auto has_reason = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stop_signal_ != 0 || device_failed_;
  };
  int stop_signal = 0;
  {
    absl::MutexLock lock(&mutex_);
    mutex_.AwaitWithTimeout(absl::Condition(&has_reason), timeout);
    if (device_failed_) return StopReason::kDeviceFault;
    stop_signal = std::exchange(stop_signal_, 0);
  }
  if (stop_signal == 0) return StopReason::kTimeout;
  LOG(INFO, "received {}", NameOf(stop_signal));
  return StopReason::kSignal;
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
  pollfd fds[] = {{closing_, POLLIN, 0},
                  {stop_signals_, POLLIN, 0},
                  {faults_, POLLIN, 0},
                  {hangups_, POLLIN, 0}};
  while (true) {
    if (::poll(fds, std::size(fds), PollTimeout(end - absl::Now())) < 0) continue;  // EINTR
    if ((fds[0].revents & POLLIN) != 0) return;
    if ((fds[1].revents & POLLIN) != 0) TakeStopSignal();
    if ((fds[2].revents & POLLIN) != 0) {
      end = absl::Now() + kFaultGrace;
      fds[2].fd = -1;  // heard
    }
    if ((fds[3].revents & POLLIN) != 0) TakeHangup();
    if (absl::Now() >= end) {
      ExitAfter(
          [] {
            LOG(ERROR, "exiting with code {}: {} after a device fault", kExitDeviceFault,
                absl::FormatDuration(kFaultGrace));
          },
          kExitDeviceFault);
    }
  }
}

void StopSource::TakeStopSignal() {
  signalfd_siginfo info;
  if (::read(stop_signals_, &info, sizeof(info)) != sizeof(info)) return;
  const auto now = std::chrono::steady_clock::now();
  if (ordered_.has_value()) {
    if (now - *ordered_ < kSameOrder) {
      LOG(INFO, "a stop signal again within {} s: the same order", kSameOrder.count());
      return;
    }
    ExitAfter([] { LOG(WARNING, "second signal: exiting at once"); }, kExitFailure);
  }
  ordered_ = now;
  const auto stop_signal = static_cast<int>(info.ssi_signo);
  {
    absl::MutexLock lock(&mutex_);
    stop_signal_ = stop_signal;
    if (is_serving_) return;
  }
  ExitAfter(
      [&] { LOG(INFO, "received {} before the server served; exiting", NameOf(stop_signal)); }, 0);
}

void StopSource::TakeHangup() {
  signalfd_siginfo info;
  if (::read(hangups_, &info, sizeof(info)) == sizeof(info)) on_hangup_();
}

}  // namespace swiglu::server
