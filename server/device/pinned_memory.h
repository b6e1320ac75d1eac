// SPDX-License-Identifier: Apache-2.0
//
// The memory source for CUDA: host memory that kernels of every device read and write directly.
#pragma once

#include <memory>

#include "server/batching/observer.h"
#include "server/device/memory_source.h"

namespace swiglu::server {

// Pinned host memory, mapped into the address space of every device at the address that it has on
// the host (unified addressing). Allocated in the context of device `ordinal`. Takes about a
// millisecond for a few MiB; freeing may wait for the device. `observer` is told what CUDA says
// where there is none to be had; it may be nullptr, and must outlive the memory.
std::unique_ptr<MemorySource> MakePinnedMemory(int ordinal, Observer* observer);

}  // namespace swiglu::server
