// SPDX-License-Identifier: Apache-2.0
//
// What the host offers to CUDA, asked before anything is set up.
#pragma once

#include <cuda_runtime_api.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/gpu/device_choice.h"

namespace swiglu::server {

// All CUDA devices of the host, at least one, or FAILED_PRECONDITION with a sentence that says what
// is missing.
absl::StatusOr<std::vector<DeviceInfo>> FindCudaDevices();

// What the answer `error` of cudaGetDeviceCount means, given the CUDA versions of the driver (0:
// none) and of this build, as CUDA writes them: 13000. OK for cudaSuccess. A pure function.
absl::Status ProbeStatus(cudaError_t error, int driver_version, int runtime_version);

// The newest CUDA version that the driver supports: "13.0".
std::string CudaDriverVersion();

}  // namespace swiglu::server
