// SPDX-License-Identifier: Apache-2.0
//
// Decides when the process ends. One thread waits for a stop signal or a device fault, and then
// ends the process. A watchdog thread takes the signals, and ends the process if no other thread
// does. Part of the program, not of a library.
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

// Exit codes. The others are 0, and 2 for a wrong command line.
inline constexpr int kExitFailure = 1;
inline constexpr int kExitDeviceFault = 70;

// Why the wait ended.
enum class StopReason { kSignal, kDeviceFault, kTimeout };

// Calls `last_words`, which must not block, then ends the process with `code`. No destructor runs.
// `last_words` may log: before the end, the log gets at most logging::kLastWordsLimit to write its
// lines.
[[noreturn]] void ExitAfter(absl::FunctionRef<void()> last_words, int code);

// After this call, an exception that no thread catches ends the process, and a line of the log
// names it. The exit code is kExitFailure if memory or threads have run out; otherwise the process
// calls abort().
void EndOnExceptions();

// Takes SIGHUP, the stop signals SIGTERM and SIGINT, and sticky device errors. Before
// `BeginServing`, the first stop signal ends the process at once with 0. After it, the first stop
// signal and the first error end a `Wait`. A stop signal within kSameOrder after the first one
// counts as the same request, and is ignored: timeout(1) signals its child and then the child's
// whole process group. On a later stop signal, the watchdog thread ends the process at once with
// kExitFailure. If the process has not ended within kFaultGrace after a device error, the watchdog
// ends it with kExitDeviceFault, even if logging blocks the other threads. Create this object
// before any other thread, so that all threads have the signals blocked. At most one per process.
class StopSource final : public Observer {
 public:
  // A further stop signal within this time after the first means the same request to stop.
  static constexpr std::chrono::seconds kSameOrder{1};

  // The longest that the process lives on after a sticky device error, not counting its last words.
  static constexpr absl::Duration kFaultGrace = absl::Seconds(4);

  // `on_hangup` is called at every SIGHUP, on the watchdog thread, and must not block. If the
  // process was started with SIGHUP ignored (by nohup, say), it goes on ignoring SIGHUP.
  explicit StopSource(std::function<void()> on_hangup);
  ~StopSource() override;
  StopSource(const StopSource&) = delete;
  StopSource& operator=(const StopSource&) = delete;

  // From here on a stop signal is for `Wait`, since there may be requests to finish. Call it once.
  void BeginServing();

  // Blocks until there is a stop signal that no earlier `Wait` has returned, or a sticky error, but
  // at most for `timeout`. After an error, every `Wait` returns at once. Logs the signal. Only one
  // thread may wait at a time.
  StopReason Wait(absl::Duration timeout);

  // Whether there was a sticky error. Thread-safe.
  bool device_failed() const;

  // Only a sticky error stops the process; this class ignores all other errors.
  void DeviceFailed(int device, DeviceError kind) override;
  void RequestFinished(const RequestRecord&) override {}
  void RequestSent(const Model*, std::chrono::nanoseconds, std::chrono::nanoseconds) override {}
  void BatchFinished(const BatchRecord&) override {}

 private:
  // The watchdog thread. Nothing may block it while the process lives.
  void Watch();
  void TakeStopSignal();
  void TakeHangup();

  const std::function<void()> on_hangup_;
  int stop_signals_ = -1;  // a signalfd
  int hangups_ = -1;       // likewise
  int faults_ = -1;        // an eventfd
  int closing_ = -1;       // an eventfd that the destructor raises

  // When the first stop signal came. Only the watchdog thread uses it.
  std::optional<std::chrono::steady_clock::time_point> ordered_;

  mutable absl::Mutex mutex_;
  bool is_serving_ ABSL_GUARDED_BY(mutex_) = false;
  int stop_signal_ ABSL_GUARDED_BY(mutex_) = 0;  // no `Wait` has returned it yet; 0: none
  bool device_failed_ ABSL_GUARDED_BY(mutex_) = false;

  std::thread watcher_;
};

}  // namespace swiglu::server
