// SPDX-License-Identifier: Apache-2.0
//
// The memory source for CUDA: host memory that kernels of every device read and write directly.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>

#include "absl/status/status.h"
#include "server/gpu/device_faults.h"
#include "server/memory/memory_source.h"

namespace swiglu::server {

// Pinned host memory, mapped into the address space of every device at the address that it has on
// the host (unified addressing). Allocated in the context of device `ordinal`. Takes about a
// millisecond for a few MiB; freeing may wait for the device. `faults` are told of CUDA's error
// when an allocation fails, and must outlive the memory.
std::unique_ptr<MemorySource> MakePinnedMemory(int ordinal, DeviceFaults* faults);

// What `Allocate` does with an error of CUDA: tells `faults`, and returns RESOURCE_EXHAUSTED where
// the host has no more memory to pin, else `CudaStatus`. REQUIRES: not cudaSuccess.
absl::Status PinningFailed(cudaError_t error, size_t size_bytes, int ordinal, DeviceFaults& faults);

}  // namespace swiglu::server
