// SPDX-License-Identifier: Apache-2.0
//
// When the process ends: signals and device faults, told to one waiting thread, and made sure of by
// another. Part of the program, not of a library.
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

// The exit codes beside 0 and the command line's own 2.
inline constexpr int kExitFailure = 1;
inline constexpr int kExitDeviceFault = 70;

// Why the wait ended.
enum class StopReason { kSignal, kDeviceFault, kTimeout };

// Ends the process with `code`, without any destructor, once `last_words` has returned, which must
// not block. They may log: the lines have logging::kLastWordsLimit to be taken.
[[noreturn]] void ExitAfter(absl::FunctionRef<void()> last_words, int code);

// From here on an exception that leaves a thread ends the process with a line that says which: with
// kExitFailure where memory or threads have run out, else by abort().
void EndOnExceptions();

// Takes SIGTERM, SIGINT and SIGHUP, and sticky device errors. The first SIGTERM or SIGINT and the
// first error end a `Wait`. What comes within kSameOrder of that first signal is the same order
// again: timeout(1) signals its child and then the child's whole process group. On a later one a
// thread of its own ends the process at once, with kExitFailure; and after an error that everybody
// else has not ended it for within kFaultGrace, with kExitDeviceFault, whatever they are waiting
// for. Make it before any other thread, so that all threads have
// the signals blocked. One per process.
class StopSource final : public Observer {
 public:
  // How long after the first stop signal a further one says nothing new.
  static constexpr std::chrono::seconds kSameOrder{1};

  // The longest that a process lives on after a sticky device error, last words aside.
  static constexpr absl::Duration kFaultGrace = absl::Seconds(4);

  // `on_hangup` is called at every SIGHUP, on the thread that takes the signals, and must not
  // block. A process that was started with SIGHUP ignored, as by nohup, goes on ignoring it.
  explicit StopSource(std::function<void()> on_hangup);
  ~StopSource() override;
  StopSource(const StopSource&) = delete;
  StopSource& operator=(const StopSource&) = delete;

  // Blocks until a signal or an error comes that no wait has ended for, or for `timeout`; an error
  // ends every wait from then on. Logs the signal. One thread at a time.
  StopReason Wait(absl::Duration timeout);

  // Whether a sticky error has come. Thread-safe.
  bool device_failed() const;

  // Only a sticky error stops the process; everything else is none of our business.
  void DeviceFailed(int device, DeviceError kind) override;
  void RequestFinished(const RequestRecord&) override {}
  void RequestSent(const Model*, std::chrono::nanoseconds, std::chrono::nanoseconds) override {}
  void RequestRejected(Rejection) override {}
  void BatchFinished(const BatchRecord&) override {}

 private:
  // The thread that ends the process; nothing but the end may block it.
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
  int stop_signal_ ABSL_GUARDED_BY(mutex_) = 0;  // that no wait has told of yet; 0: none
  bool device_failed_ ABSL_GUARDED_BY(mutex_) = false;

  std::thread watcher_;
};

}  // namespace swiglu::server
