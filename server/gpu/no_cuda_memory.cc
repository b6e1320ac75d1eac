// SPDX-License-Identifier: Apache-2.0
//
// The memory of devices that a build without CUDA does not have.
#include "server/gpu/gpu_memory.h"

namespace swiglu::server {

int64_t CudaMemoryUsedBytes(int) { return 0; }

}  // namespace swiglu::server
