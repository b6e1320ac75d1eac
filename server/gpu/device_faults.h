// SPDX-License-Identifier: Apache-2.0
//
// The errors of the devices. All of them are kept, reported and logged here: those of batches, and
// those of allocations of pinned memory.
#pragma once

#include <atomic>
#include <optional>

#include "absl/strings/string_view.h"
#include "server/core/observer.h"

namespace swiglu::server {

// Thread-safe.
class DeviceFaults {
 public:
  // `observer` is told of device errors; it may be nullptr, and must outlive this.
  explicit DeviceFaults(Observer* observer) : observer_(observer) {}
  DeviceFaults(const DeviceFaults&) = delete;
  DeviceFaults& operator=(const DeviceFaults&) = delete;

  // Tells the observer, then logs. Logging may block where nobody reads the log. Of all sticky
  // errors on all devices it reports only the first. After that error, everything in flight fails
  // with the same error.
  void Report(int ordinal, DeviceError kind, absl::string_view description);

  // The first device that failed for good; nullopt while none has. Never changes once it is set.
  std::optional<int> failed_device() const;

 private:
  static constexpr int kNoDevice = -1;

  Observer* const observer_;
  std::atomic<int> failed_device_{kNoDevice};
};

}  // namespace swiglu::server
