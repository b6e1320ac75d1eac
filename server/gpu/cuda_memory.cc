// SPDX-License-Identifier: Apache-2.0
//
// The memory of a device, as CUDA sees it.
#include <cuda_runtime_api.h>

#include <cstddef>

#include "server/gpu/gpu_memory.h"

namespace swiglu::server {

int64_t CudaMemoryUsedBytes(int ordinal) {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  if (cudaSetDevice(ordinal) != cudaSuccess ||
      cudaMemGetInfo(&free_bytes, &total_bytes) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return static_cast<int64_t>(total_bytes - free_bytes);
}

}  // namespace swiglu::server
