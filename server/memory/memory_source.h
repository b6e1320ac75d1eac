// SPDX-License-Identifier: Apache-2.0
//
// Where a slab pool gets its memory from: the process's own memory here, pinned memory in
// `pinned_memory.h`.
#pragma once

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"

namespace swiglu::server {

// Memory in large pieces. Thread-safe. Calls may be slow and may wait for a device. So do not call
// them while holding a lock that a request needs.
class MemorySource {
 public:
  virtual ~MemorySource() = default;

  // Returns `size_bytes` (> 0) bytes, aligned to `kSlabAlignment` or better. RESOURCE_EXHAUSTED if
  // there is no memory.
  virtual absl::StatusOr<std::byte*> Allocate(size_t size_bytes) = 0;

  // Gives back what `Allocate` returned for the same `size_bytes`. Logs what goes wrong.
  virtual void Free(std::byte* data, size_t size_bytes) noexcept = 0;
};

// The process's own memory, pageable, aligned to pages.
std::unique_ptr<MemorySource> MakeHostMemory();

}  // namespace swiglu::server
