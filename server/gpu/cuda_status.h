// SPDX-License-Identifier: Apache-2.0
//
// The one place that translates a cudaError_t for the rest of the server.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "absl/status/status.h"
#include "server/core/observer.h"

namespace swiglu::server {

// Which kind of error it is. Sticky: the device can no longer be used by this process, which has to
// end. REQUIRES: not cudaSuccess.
DeviceError ClassifyCudaError(cudaError_t error);

// OK for cudaSuccess. Else INTERNAL "device 0 failed" (sticky), RESOURCE_EXHAUSTED "device 0 is out
// of memory", or INTERNAL with the error's name and text.
absl::Status CudaStatus(cudaError_t error, int ordinal);

// What an operator needs to look the error up: "cudaErrorIllegalAddress: an illegal memory access
// was encountered".
std::string DescribeCudaError(cudaError_t error);

}  // namespace swiglu::server
