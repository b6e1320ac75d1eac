// SPDX-License-Identifier: Apache-2.0
//
// The source of a slab pool's memory. This file has the source of ordinary memory, and
// `pinned_memory.h` has that of pinned memory.
#pragma once

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"

namespace swiglu::server {

// Allocates large pieces of memory. Thread-safe. Calls may be slow and may wait for a device, so no
// caller may hold a lock that a request needs.
class MemorySource {
 public:
  virtual ~MemorySource() = default;

  // Returns `size_bytes` (> 0) bytes, aligned to a multiple of `kSlabAlignment`. RESOURCE_EXHAUSTED
  // if there is no memory.
  virtual absl::StatusOr<std::byte*> Allocate(size_t size_bytes) = 0;

  // Frees memory that `Allocate` returned for the same `size_bytes`. Logs errors.
  virtual void Free(std::byte* data, size_t size_bytes) noexcept = 0;
};

// Returns a source of ordinary host memory, which is pageable and aligned to pages.
std::unique_ptr<MemorySource> MakeHostMemory();

}  // namespace swiglu::server
