// SPDX-License-Identifier: Apache-2.0
//
// Translates a cudaError_t into errors of the server. For a few of CUDA's errors, cuda_probe.h and
// pinned_memory.h return statuses with texts of their own.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "absl/status/status.h"
#include "server/core/observer.h"

namespace swiglu::server {

// Returns the kind of `error`. kSticky: this process can no longer use the device, and has to end.
// REQUIRES: `error` is not cudaSuccess.
DeviceError ClassifyCudaError(cudaError_t error);

// Returns OK for cudaSuccess. Else returns INTERNAL "device 0 failed" (sticky, a StickyStatus of
// device_faults.h), RESOURCE_EXHAUSTED "device 0 is out of memory", or INTERNAL with the error's
// name and text.
absl::Status CudaStatus(cudaError_t error, int ordinal);

// Describes the error so that an operator can look it up: "cudaErrorIllegalAddress: an illegal
// memory access was encountered".
std::string DescribeCudaError(cudaError_t error);

}  // namespace swiglu::server
