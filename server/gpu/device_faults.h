// SPDX-License-Identifier: Apache-2.0
//
// Reports and logs the device errors of batches, of allocations of pinned memory and of loads of
// weights. Remembers the first device that failed for good.
#pragma once

#include <atomic>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/core/observer.h"

namespace swiglu::server {

// Returns the status of work that met a sticky error of device `ordinal`: INTERNAL "device 0
// failed". The status and its copies carry the ordinal and `description` for
// DeviceFaults::ReportSticky.
absl::Status StickyStatus(int ordinal, absl::string_view description);

// Thread-safe.
class DeviceFaults {
 public:
  // `observer` gets the device errors. It may be nullptr, and must outlive this object.
  explicit DeviceFaults(Observer* observer) : observer_(observer) {}
  DeviceFaults(const DeviceFaults&) = delete;
  DeviceFaults& operator=(const DeviceFaults&) = delete;

  // Calls the observer, then logs. Of all sticky errors on all devices, reports only the first one,
  // because all work in flight then fails with the same error.
  void Report(int ordinal, DeviceError kind, absl::string_view description);

  // Reports the sticky error that `status` carries, if it is one of `StickyStatus`.
  void ReportSticky(const absl::Status& status);

  // The first device that failed for good. nullopt if none has. Does not change once it is set.
  std::optional<int> failed_device() const;

 private:
  static constexpr int kNoDevice = -1;

  Observer* const observer_;
  std::atomic<int> failed_device_{kNoDevice};
};

}  // namespace swiglu::server
