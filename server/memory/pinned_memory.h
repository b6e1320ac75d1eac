// SPDX-License-Identifier: Apache-2.0
//
// The memory source for CUDA: host memory that kernels on every device read and write directly.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>

#include "absl/status/status.h"
#include "server/gpu/device_faults.h"
#include "server/memory/memory_source.h"

namespace swiglu::server {

// Returns a source of pinned host memory, allocated in the context of device `ordinal`. Every
// device can use it at its host address (unified addressing). Allocating a few MiB takes about a
// millisecond. Freeing may wait for the device. Failed allocations are reported to `faults`, which
// must outlive the source.
std::unique_ptr<MemorySource> MakePinnedMemory(int ordinal, DeviceFaults* faults);

// How `Allocate` handles `error`: reports it to `faults`, and returns RESOURCE_EXHAUSTED if the
// host has no more memory to pin, else the `CudaStatus` of `error`. REQUIRES: `error` is not
// cudaSuccess.
absl::Status PinningFailed(cudaError_t error, size_t size_bytes, int ordinal, DeviceFaults& faults);

}  // namespace swiglu::server
