// SPDX-License-Identifier: Apache-2.0
//
// Free lists under one lock; growth, which may be slow, under another.
#include "server/memory/slab_pool.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/log/log.h"

namespace swiglu::server {

CachingSlabPool::CachingSlabPool(std::unique_ptr<MemorySource> source,
                                 CachingSlabPoolOptions options)
    : source_(std::move(source)), options_(options) {}

CachingSlabPool::~CachingSlabPool() {
  absl::MutexLock lock(&mutex_);
  CHECK(used_bytes_ == 0);
  for (int size_class = 0; size_class < kNumSizeClasses; ++size_class) {
    for (std::byte* data : free_lists_[size_class].slabs) {
      source_->Free(data, SizeClassBytes(size_class));
    }
  }
}

size_t CachingSlabPool::SlabBytes(size_t size_bytes) const {
  return size_bytes > kLargestSlabBytes ? size_bytes : SizeClassBytes(SizeClass(size_bytes));
}

absl::StatusOr<Slab> CachingSlabPool::Acquire(size_t size_bytes) {
  CHECK(size_bytes > 0);
  if (size_bytes > kLargestSlabBytes ||
      SizeClassBytes(SizeClass(size_bytes)) > options_.capacity_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat("a slab of ", size_bytes,
                                                     " bytes does not fit into a pool of ",
                                                     options_.capacity_bytes, " bytes"));
  }
  const int size_class = SizeClass(size_bytes);
  if (std::byte* data = TakeCached(size_class)) return Wrap(data, size_class);
  {
    absl::MutexLock growth(&growth_mutex_);
    // One may have come back while another miss was being served.
    if (std::byte* data = TakeCached(size_class)) return Wrap(data, size_class);
    if (absl::Status status = MakeRoom(size_class, size_bytes); !status.ok()) return status;
  }
  absl::StatusOr<std::byte*> data = source_->Allocate(SizeClassBytes(size_class));
  if (absl::IsResourceExhausted(data.status())) {
    // Asked again though nothing was cached: another miss may have freed it all just before.
    FreeCached(SizeClassBytes(size_class));
    data = source_->Allocate(SizeClassBytes(size_class));
  }
  if (!data.ok()) {
    Forget(size_class);
    return data.status();
  }
  return Wrap(*data, size_class);
}

absl::Status CachingSlabPool::Reserve(absl::Span<const size_t> sizes) {
  std::vector<Slab> slabs;
  slabs.reserve(sizes.size());
  for (size_t size_bytes : sizes) {
    absl::StatusOr<Slab> slab = Acquire(size_bytes);
    if (!slab.ok()) return slab.status();
    slabs.push_back(*std::move(slab));
  }
  return absl::OkStatus();
}

std::byte* CachingSlabPool::TakeCached(int size_class) {
  absl::MutexLock lock(&mutex_);
  FreeList& list = free_lists_[size_class];
  if (list.slabs.empty()) return nullptr;
  std::byte* data = list.slabs.back();
  list.slabs.pop_back();
  cached_bytes_ -= SizeClassBytes(size_class);
  used_bytes_ += SizeClassBytes(size_class);
  return data;
}

absl::Status CachingSlabPool::MakeRoom(int size_class, size_t size_bytes) {
  const size_t slab_bytes = SizeClassBytes(size_class);
  Evict(slab_bytes);
  absl::MutexLock lock(&mutex_);
  // Written so that nothing overflows: the sum on the right never exceeds the capacity.
  if (slab_bytes > options_.capacity_bytes - (used_bytes_ + cached_bytes_)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a slab of ", size_bytes, " bytes was asked for; ", used_bytes_.load(), " of ",
                     options_.capacity_bytes, " bytes are in use"));
  }
  FreeList& list = free_lists_[size_class];
  list.slabs.reserve(++list.num_slabs);
  used_bytes_ += slab_bytes;
  return absl::OkStatus();
}

void CachingSlabPool::Evict(size_t wanted_bytes) {
  for (int size_class = kNumSizeClasses - 1; size_class >= 0; --size_class) {
    while (true) {
      {
        absl::MutexLock lock(&mutex_);
        // What is in use cannot be freed: without enough room beside it the cache is better kept.
        if (wanted_bytes > options_.capacity_bytes - used_bytes_) return;
        if (wanted_bytes <= options_.capacity_bytes - (used_bytes_ + cached_bytes_)) return;
      }
      if (!FreeOne(size_class)) break;
    }
  }
}

bool CachingSlabPool::FreeOne(int size_class) {
  std::byte* data = nullptr;
  {
    absl::MutexLock lock(&mutex_);
    FreeList& list = free_lists_[size_class];
    if (list.slabs.empty()) return false;
    data = list.slabs.back();
    list.slabs.pop_back();
    --list.num_slabs;
  }
  // Still counted as cached, so that nobody takes its room before it is free.
  source_->Free(data, SizeClassBytes(size_class));
  absl::MutexLock lock(&mutex_);
  cached_bytes_ -= SizeClassBytes(size_class);
  return true;
}

void CachingSlabPool::FreeCached(size_t wanted_bytes) {
  absl::MutexLock growth(&growth_mutex_);
  size_t freed_bytes = 0;
  for (int size_class = kNumSizeClasses - 1; size_class >= 0; --size_class) {
    while (freed_bytes < wanted_bytes && FreeOne(size_class)) {
      freed_bytes += SizeClassBytes(size_class);
    }
  }
}

void CachingSlabPool::Forget(int size_class) {
  absl::MutexLock lock(&mutex_);
  --free_lists_[size_class].num_slabs;
  used_bytes_ -= SizeClassBytes(size_class);
}

void CachingSlabPool::Return(std::byte* data, int size_class) noexcept {
  Poison(data, size_class);
  absl::MutexLock lock(&mutex_);
  free_lists_[size_class].slabs.push_back(data);
  used_bytes_ -= SizeClassBytes(size_class);
  cached_bytes_ += SizeClassBytes(size_class);
}

void CachingSlabPool::Poison(std::byte* data, int size_class) const {
  if (options_.poison) std::memset(data, *options_.poison, SizeClassBytes(size_class));
}

Slab CachingSlabPool::Wrap(std::byte* data, int size_class) {
  Poison(data, size_class);
  const auto give_back = [this, size_class](std::byte* returned) noexcept {
    Return(returned, size_class);
  };
  return {std::shared_ptr<std::byte>(data, give_back), SizeClassBytes(size_class)};
}

}  // namespace swiglu::server
