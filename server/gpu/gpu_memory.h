// SPDX-License-Identifier: Apache-2.0
//
// What is in use of a GPU's memory, asked of the driver. The build chooses who answers:
// cuda_memory.cc, or no_cuda_memory.cc where it has no CUDA.
#pragma once

#include <cstdint>

namespace swiglu::server {

// Memory of that CUDA device which is in use, by this process or any other; 0 where that cannot be
// read. Asks the driver: some microseconds.
int64_t CudaMemoryUsedBytes(int ordinal);

}  // namespace swiglu::server
