// SPDX-License-Identifier: Apache-2.0
//
// When the process ends. One waiting thread learns of signals and device faults. Another thread, a
// watchdog, ends the process if no other thread does. Part of the program, not of a library.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/core/observer.h"

namespace swiglu::server {

// The exit codes other than 0, and other than 2 for a wrong command line.
inline constexpr int kExitFailure = 1;
inline constexpr int kExitDeviceFault = 70;

// Why the wait ended.
enum class StopReason { kSignal, kDeviceFault, kTimeout };

// Calls `last_words`, which must not block, then ends the process with `code`. No destructor runs.
// `last_words` may log; the process waits at most logging::kLastWordsLimit until the lines are
// read.
[[noreturn]] void ExitAfter(absl::FunctionRef<void()> last_words, int code);

// From here on an exception that leaves a thread ends the process. A line of the log names the
// exception. The exit code is kExitFailure if memory or threads have run out; otherwise the process
// ends by abort().
void EndOnExceptions();

// Takes SIGTERM, SIGINT and SIGHUP, and sticky device errors. The first SIGTERM or SIGINT and the
// first error end a `Wait`. A signal within kSameOrder of that first one is the same request to
// stop: timeout(1) signals its child and then the child's whole process group. On a later signal a
// watchdog thread ends the process at once, with kExitFailure. After a device error the watchdog
// ends the process with kExitDeviceFault if it has not ended within kFaultGrace, even if logging
// blocks the other threads. Make it before any other thread, so that all threads have the signals
// blocked. One per process.
class StopSource final : public Observer {
 public:
  // A further stop signal within this time after the first means the same request to stop.
  static constexpr std::chrono::seconds kSameOrder{1};

  // The longest that a process lives on after a sticky device error, last words aside.
  static constexpr absl::Duration kFaultGrace = absl::Seconds(4);

  // `on_hangup` is called at every SIGHUP, on the thread that takes the signals, and must not
  // block. A process that was started with SIGHUP ignored, as by nohup, goes on ignoring it.
  explicit StopSource(std::function<void()> on_hangup);
  ~StopSource() override;
  StopSource(const StopSource&) = delete;
  StopSource& operator=(const StopSource&) = delete;

  // Blocks until there is a signal that no earlier wait has returned, until an error has come, or
  // for `timeout`. Once an error has come, every wait ends at once. Logs the signal. One thread at
  // a time.
  StopReason Wait(absl::Duration timeout);

  // Whether a sticky error has come. Thread-safe.
  bool device_failed() const;

  // Only a sticky error stops the process; this class ignores all other errors.
  void DeviceFailed(int device, DeviceError kind) override;
  void RequestFinished(const RequestRecord&) override {}
  void RequestSent(const Model*, std::chrono::nanoseconds, std::chrono::nanoseconds) override {}
  void BatchFinished(const BatchRecord&) override {}

 private:
  // The watchdog's thread. Nothing may block it before the end of the process.
  void Watch();
  void TakeStopSignal();
  void TakeHangup();

  const std::function<void()> on_hangup_;
  int stop_signals_ = -1;  // a signalfd
  int hangups_ = -1;       // likewise
  int faults_ = -1;        // an eventfd
  int closing_ = -1;       // an eventfd: the destructor runs

  // When the first stop signal came. For the watcher alone.
  std::optional<std::chrono::steady_clock::time_point> ordered_;

  mutable absl::Mutex mutex_;
  int stop_signal_ ABSL_GUARDED_BY(mutex_) = 0;  // which no wait has returned yet; 0: none
  bool device_failed_ ABSL_GUARDED_BY(mutex_) = false;

  std::thread watcher_;
};

}  // namespace swiglu::server
