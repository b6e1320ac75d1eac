// SPDX-License-Identifier: Apache-2.0
//
// A slab is the host memory that holds one request's tensors; a pool hands slabs out and takes them
// back. This is the interface only: `server/memory` implements it over pinned memory (CUDA) or
// plain memory (CPU).
#pragma once

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"

namespace swiglu::server {

// Tensors inside a slab begin at multiples of this many bytes, and so does the slab.
inline constexpr size_t kSlabAlignment = 256;

// Shared ownership of one slab. A slab is for one request or chunk. If the executor reads inputs
// where they are (`Executor::TakesReaders`), the slab has only the outputs. Otherwise the slab has
// the inputs, and the outputs then replace them. When the last copy of `data` is destroyed, on any
// thread, the memory goes back to its pool. The content of a fresh slab is unspecified.
struct Slab {
  std::shared_ptr<std::byte> data;
  // Usable bytes, at least what was asked for.
  size_t size_bytes = 0;
};

// Hands out slabs. Thread-safe. The pool outlives every slab that it handed out.
class SlabPool {
 public:
  virtual ~SlabPool() = default;

  // The memory that a slab of `size_bytes` (> 0) takes: at least that.
  virtual size_t SlabBytes(size_t size_bytes) const = 0;

  // A slab of at least `size_bytes` (> 0), aligned to `kSlabAlignment`. Does not block on other
  // requests. On error (RESOURCE_EXHAUSTED: there is no memory) nothing changes.
  virtual absl::StatusOr<Slab> Acquire(size_t size_bytes) = 0;
};

}  // namespace swiglu::server
