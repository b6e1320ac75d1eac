// SPDX-License-Identifier: Apache-2.0
//
// When the process ends: signals and device faults, told to one waiting thread. Part of the
// program, not of a library.
#pragma once

#include <thread>

#include "absl/time/time.h"
#include "server/batching/observer.h"

namespace swiglu::server {

// Why the wait ended.
enum class StopReason { kSignal, kDeviceFault, kTimeout };

// Takes SIGTERM and SIGINT, and sticky device errors, and hands them to `Wait`. Make it before any
// other thread, so that all threads have the signals blocked. One per process.
class StopSource final : public Observer {
 public:
  StopSource();
  ~StopSource() override;
  StopSource(const StopSource&) = delete;
  StopSource& operator=(const StopSource&) = delete;

  // Blocks until a signal or a fault comes, or for `timeout`. One thread at a time.
  StopReason Wait(absl::Duration timeout);

  // From here on another signal ends the process at once, with status 1.
  void ExitOnNextSignal();

  // Only a sticky error stops the process; everything else is none of our business.
  void DeviceFailed(int device, DeviceError kind) override;
  void RequestFinished(const RequestRecord&) override {}
  void RequestSent(const Model*, std::chrono::nanoseconds, std::chrono::nanoseconds) override {}
  void RequestRejected(Rejection) override {}
  void BatchFinished(const BatchRecord&) override {}

 private:
  int signals_ = -1;  // a signalfd
  int faults_ = -1;   // an eventfd
  int closing_ = -1;  // an eventfd: the destructor runs
  std::thread watcher_;
};

}  // namespace swiglu::server
