// SPDX-License-Identifier: Apache-2.0
//
// Finds the CUDA devices of the host, before the server sets up anything.
#pragma once

#include <cuda_runtime_api.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/gpu/device_choice.h"

namespace swiglu::server {

// Returns all CUDA devices of the host, at least one. FAILED_PRECONDITION, with the reason, if
// there are none, or if one of them does not answer.
absl::StatusOr<std::vector<DeviceInfo>> FindCudaDevices();

// Translates `error`, which cudaGetDeviceCount returned, into a status. `driver_version` (0: no
// driver) and `runtime_version` (of this build) are CUDA's version numbers, such as 13000. Returns
// OK for cudaSuccess. A pure function.
absl::Status ProbeStatus(cudaError_t error, int driver_version, int runtime_version);

// The newest CUDA version that the driver supports: "13.0".
std::string CudaDriverVersion();

}  // namespace swiglu::server
