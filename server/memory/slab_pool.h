// SPDX-License-Identifier: Apache-2.0
//
// The slab pool of every executor. It keeps the memory that requests give back, and hands it to
// later requests. So most requests need no new memory from the system or from CUDA.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "server/core/slab.h"
#include "server/memory/memory_source.h"
#include "server/memory/size_class.h"

namespace swiglu::server {

struct CachingSlabPoolOptions {
  // The most bytes that slabs in use and cached slabs take together, counted by size class. >= 1.
  // Admission also charges a slab by its size class, so that all slabs fit into their half of the
  // budget. The program gives the pool this half plus 1 MiB.
  size_t capacity_bytes = 0;
  // Fills each slab with this byte before the slab is handed out, and again when it comes back. For
  // tests: reveals code that reads a slab before writing to it, or after giving it back.
  std::optional<uint8_t> poison = std::nullopt;
};

// A slab pool of limited capacity, with one free list per size class. Thread-safe. If a cached slab
// fits (a hit), `Acquire` takes one short lock and makes one small allocation. Otherwise (a miss),
// `Acquire` frees cached slabs of other classes if the capacity requires that, and then asks the
// source. A miss may wait for another miss. Hits, and slabs that come back, never wait for a miss.
// Giving back a slab never calls the source and never fails.
class CachingSlabPool final : public SlabPool {
 public:
  CachingSlabPool(std::unique_ptr<MemorySource> source, CachingSlabPoolOptions options);

  // Frees the cached slabs. REQUIRES: every slab was given back.
  ~CachingSlabPool() override;

  CachingSlabPool(const CachingSlabPool&) = delete;
  CachingSlabPool& operator=(const CachingSlabPool&) = delete;

  size_t SlabBytes(size_t size_bytes) const override;

  // See `SlabPool`. RESOURCE_EXHAUSTED also if the slab would exceed the capacity. If the source
  // has no memory left, frees cached slabs until they add up to the size of the new slab, and asks
  // the source once more.
  absl::StatusOr<Slab> Acquire(size_t size_bytes) override;

  // Fills the cache with one slab for each of `sizes`. On error, slabs allocated until then stay
  // cached.
  absl::Status Reserve(absl::Span<const size_t> sizes);

  // The bytes of slabs in use, and of cached slabs. These methods take no lock, so the two values
  // may be from different moments.
  size_t used_bytes() const { return used_bytes_; }
  size_t cached_bytes() const { return cached_bytes_; }

 private:
  struct FreeList {
    std::vector<std::byte*> slabs;  // the slab that came back last is at the end
    size_t num_slabs =
        0;  // in use and cached; `slabs` has capacity for all, so `Return` never allocates
  };

  // Takes a cached slab of that class into use, or returns nullptr.
  std::byte* TakeCached(int size_class);
  // Frees cached slabs if the capacity requires that. Then counts one more used slab of that class.
  absl::Status MakeRoom(int size_class, size_t size_bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(growth_mutex_);
  // Frees cached slabs, the largest first, until `wanted_bytes` more fit or no cached slab is left.
  // Frees none if the slabs in use leave too little room anyway.
  void Evict(size_t wanted_bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(growth_mutex_);
  // Frees one cached slab of that class. Returns false if there is none.
  bool FreeOne(int size_class) ABSL_EXCLUSIVE_LOCKS_REQUIRED(growth_mutex_);
  // Frees cached slabs, the largest first, until `wanted_bytes` are freed or none is left.
  void FreeCached(size_t wanted_bytes);
  // Undoes `MakeRoom` for a slab that could not be allocated.
  void Forget(int size_class);
  void Return(std::byte* data, int size_class) noexcept;
  void Poison(std::byte* data, int size_class) const;
  Slab Wrap(std::byte* data, int size_class);

  const std::unique_ptr<MemorySource> source_;
  const CachingSlabPoolOptions options_;

  // Held while the pool makes room for a slab, so that two misses never use the same room. Hits and
  // `Return` never take it.
  absl::Mutex growth_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);
  absl::Mutex mutex_;
  std::array<FreeList, kNumSizeClasses> free_lists_ ABSL_GUARDED_BY(mutex_);
  // Written with `mutex_` held, so that they agree with the lists. The metrics read them without a
  // lock.
  std::atomic<size_t> used_bytes_{0};
  std::atomic<size_t> cached_bytes_{0};
};

}  // namespace swiglu::server
