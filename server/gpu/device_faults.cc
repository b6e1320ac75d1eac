// SPDX-License-Identifier: Apache-2.0
//
// The first sticky error wins; all others are told each time.
#include "server/gpu/device_faults.h"

#include <chrono>

#include "server/log/log.h"

namespace swiglu::server {

void DeviceFaults::Report(int ordinal, DeviceError kind, absl::string_view description) {
  const bool is_sticky = kind == DeviceError::kSticky;
  int none = kNoDevice;
  if (is_sticky && !failed_device_.compare_exchange_strong(none, ordinal)) return;
  if (observer_ != nullptr) observer_->DeviceFailed(ordinal, kind);
  if (is_sticky) {
    LOG(ERROR, "device {} failed for good: {}", ordinal, description);
  } else {
    LOG_EVERY(ERROR, std::chrono::seconds(1), "device {}: {}", ordinal, description);
  }
}

std::optional<int> DeviceFaults::failed_device() const {
  const int ordinal = failed_device_.load();
  if (ordinal == kNoDevice) return std::nullopt;
  return ordinal;
}

}  // namespace swiglu::server
