// SPDX-License-Identifier: Apache-2.0
//
// Asks the driver how much of a GPU's memory is in use. The build chooses which source answers:
// cuda_memory.cc, or no_cuda_memory.cc if it has no CUDA.
#pragma once

#include <cstdint>

namespace swiglu::server {

// Memory of that CUDA device which is in use, by this process or any other; 0 where that cannot be
// read. Asks the driver: some microseconds.
int64_t CudaMemoryUsedBytes(int ordinal);

}  // namespace swiglu::server
