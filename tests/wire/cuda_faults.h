// SPDX-License-Identifier: Apache-2.0
//
// Kernels that break a CUDA device for the process that runs them. For tests.
#pragma once

#include <cuda_runtime_api.h>

namespace swiglu::server {

enum class KernelFault { kTrap, kIllegalAddress };

// Starts a kernel on `stream` that keeps the whole of the current device busy for a second, so that
// no other kernel begins meanwhile, and then does what cannot be done. Does not synchronize.
cudaError_t LaunchFault(KernelFault fault, cudaStream_t stream);

}  // namespace swiglu::server
