// SPDX-License-Identifier: Apache-2.0
//
// The slab pool of every executor. It keeps the memory that requests gave back and hands it to the
// next ones. So serving a request allocates nothing from the system or from CUDA.
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
  // The most memory that slabs in use and cached slabs take together, in bytes of their size
  // classes. >= 1. Admission charges slabs at the size of their class, so that they fit into their
  // half of the budget. The program gives the pool that half plus 1 MiB.
  size_t capacity_bytes = 0;
  // Fills every slab with this byte before it is handed out and again when it comes back. For
  // tests: it reveals code that reads memory that it has not written, or no longer holds.
  std::optional<uint8_t> poison = std::nullopt;
};

// A slab pool with one free list per size class over a bounded amount of memory. Thread-safe. If a
// cached slab fits (a hit), a slab costs one short lock and one small allocation. Otherwise (a
// miss) the pool first frees cached slabs of other classes if the capacity requires it, then asks
// the source. Hits and returns never wait for a miss. A miss may wait for another miss. Returning a
// slab never calls the source and never fails.
class CachingSlabPool final : public SlabPool {
 public:
  CachingSlabPool(std::unique_ptr<MemorySource> source, CachingSlabPoolOptions options);

  // Frees the cached slabs. REQUIRES: every slab has come back.
  ~CachingSlabPool() override;

  CachingSlabPool(const CachingSlabPool&) = delete;
  CachingSlabPool& operator=(const CachingSlabPool&) = delete;

  size_t SlabBytes(size_t size_bytes) const override;

  // As the interface says. RESOURCE_EXHAUSTED also if the pool would exceed its capacity with this
  // slab. If the source has no more memory, that much of the cache is freed and the source is asked
  // once more.
  absl::StatusOr<Slab> Acquire(size_t size_bytes) override;

  // Fills the cache with one slab for each of these sizes. On error, those that were allocated stay
  // cached.
  absl::Status Reserve(absl::Span<const size_t> sizes);

  // Memory of the slabs that somebody holds, and of those that wait for the next request. These
  // methods take no lock. So while slabs come and go, the two values may be from different moments.
  size_t used_bytes() const { return used_bytes_; }
  size_t cached_bytes() const { return cached_bytes_; }

 private:
  struct FreeList {
    std::vector<std::byte*> slabs;  // the one that came back last is at the end
    size_t num_slabs =
        0;  // in use and cached; `slabs` has room for all, so returning allocates nothing
  };

  // A cached slab of that class, now in use, or nullptr.
  std::byte* TakeCached(int size_class);
  // Counts one more slab of that class as in use. Before that, it frees cached slabs if the
  // capacity requires it.
  absl::Status MakeRoom(int size_class, size_t size_bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(growth_mutex_);
  // Frees cached slabs, the largest first, until `wanted_bytes` more fit or none is left.
  void Evict(size_t wanted_bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(growth_mutex_);
  // Frees one cached slab of that class. False if there is none.
  bool FreeOne(int size_class) ABSL_EXCLUSIVE_LOCKS_REQUIRED(growth_mutex_);
  // Frees cached slabs, the largest first, until they come to `wanted_bytes` or none is left.
  void FreeCached(size_t wanted_bytes);
  // Takes back the count of a slab that could not be allocated.
  void Forget(int size_class);
  void Return(std::byte* data, int size_class) noexcept;
  void Poison(std::byte* data, int size_class) const;
  Slab Wrap(std::byte* data, int size_class);

  const std::unique_ptr<MemorySource> source_;
  const CachingSlabPoolOptions options_;

  // Held while room is made. So a slab that is being freed is neither handed out nor counted twice.
  // A hit or a return never holds it.
  absl::Mutex growth_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);
  absl::Mutex mutex_;
  std::array<FreeList, kNumSizeClasses> free_lists_ ABSL_GUARDED_BY(mutex_);
  // Written with `mutex_` held, so that they agree with the lists; read without it by the metrics.
  std::atomic<size_t> used_bytes_{0};
  std::atomic<size_t> cached_bytes_{0};
};

}  // namespace swiglu::server
