// SPDX-License-Identifier: Apache-2.0
//
// Decides once, at the start, on which devices the server runs. The decision depends on the user's
// flags and on the devices of the host. Pure functions that do not use CUDA.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace swiglu::server {

// The value of the flag `--device`.
enum class DeviceKind { kAuto, kCpu, kCuda };

// One CUDA device.
struct DeviceInfo {
  int ordinal = 0;
  std::string name;
  std::string pci_bus_id = {};  // "0000:1b:00.0"
};

// The devices on which the server runs, and the reason.
struct DeviceChoice {
  std::vector<DeviceInfo> cuda_devices;  // empty: the CPU
  std::string reason;                    // one line for the log: "cpu: no NVIDIA driver"
};

// Chooses from `found`: all devices of the host, ordered by ordinal, or the error that says why
// there are none. `ordinals` are the devices that the user named, in the user's order. Empty means
// all devices. If the user named devices, `kAuto` behaves like `kCuda`. Errors: FAILED_PRECONDITION
// if the user wants CUDA and it is not available, INVALID_ARGUMENT for a wrong ordinal.
absl::StatusOr<DeviceChoice> ChooseDevices(DeviceKind kind, absl::Span<const int> ordinals,
                                           const absl::StatusOr<std::vector<DeviceInfo>>& found);

}  // namespace swiglu::server
