// SPDX-License-Identifier: Apache-2.0
//
// Decides once, at the start, what the server runs on. It looks at what the user asked for and at
// the devices of the host. Pure functions; knows no CUDA.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace swiglu::server {

// What was asked for: the flag `--device`.
enum class DeviceKind { kAuto, kCpu, kCuda };

// One CUDA device.
struct DeviceInfo {
  int ordinal = 0;
  std::string name;
  std::string pci_bus_id = {};  // "0000:1b:00.0"
};

// What to run on.
struct DeviceChoice {
  std::vector<DeviceInfo> cuda_devices;  // empty: the CPU
  std::string reason;                    // one line for the log: "cpu: no NVIDIA driver"
};

// Chooses from `found`: all devices of the host in order of ordinals, or the error that says why
// there is none. `ordinals` are the devices that the user named, in that order; empty means all. If
// the user named devices, `kAuto` behaves like `kCuda`. Errors: FAILED_PRECONDITION where CUDA was
// asked for and is not there, INVALID_ARGUMENT for a wrong ordinal.
absl::StatusOr<DeviceChoice> ChooseDevices(DeviceKind kind, absl::Span<const int> ordinals,
                                           const absl::StatusOr<std::vector<DeviceInfo>>& found);

}  // namespace swiglu::server
