// SPDX-License-Identifier: Apache-2.0
//
// A slab is the host memory of one request's tensors. A pool hands slabs out and takes them back.
// This file is only the interface. `server/memory` implements it with pinned (CUDA) or plain (CPU)
// memory.
#pragma once

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"

namespace swiglu::server {

// A slab, and each tensor in it, begins at a multiple of this many bytes.
inline constexpr size_t kSlabAlignment = 256;

// Shared ownership of one slab, which serves one request or chunk. If the executor reads the inputs
// from the message (`Executor::TakesReaders`), the slab has only the outputs. Otherwise the slab
// first has the inputs, and then the outputs in their place. When the last copy of `data` is
// destroyed, on any thread, the memory returns to the pool. A new slab's content is unspecified.
struct Slab {
  std::shared_ptr<std::byte> data;
  // The usable bytes, at least as many as were requested.
  size_t size_bytes = 0;
};

// Hands out slabs. Thread-safe. The pool outlives every slab that it handed out.
class SlabPool {
 public:
  virtual ~SlabPool() = default;

  // How much memory a slab of `size_bytes` (> 0) takes: `size_bytes` or more.
  virtual size_t SlabBytes(size_t size_bytes) const = 0;

  // Returns a slab of at least `size_bytes` (> 0), aligned to `kSlabAlignment`. Does not wait for
  // other requests. On error (RESOURCE_EXHAUSTED: there is no memory) nothing changes.
  virtual absl::StatusOr<Slab> Acquire(size_t size_bytes) = 0;
};

}  // namespace swiglu::server
