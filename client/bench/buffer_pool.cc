// SPDX-License-Identifier: Apache-2.0
//
// A list of idle buffers, the last used first: it is likely to be in a cache.
#include "client/bench/buffer_pool.h"

#include <utility>

namespace swiglu::bench {

std::shared_ptr<BufferPool> BufferPool::Create(size_t size_bytes) {
  return std::shared_ptr<BufferPool>(new BufferPool(size_bytes));
}

grpc::Slice BufferPool::Take() {
  std::unique_ptr<Buffer> buffer = TakeIdle();
  if (buffer == nullptr) {
    buffer = std::make_unique<Buffer>();
    buffer->bytes = std::make_unique_for_overwrite<std::byte[]>(size_bytes_);
  }
  buffer->home = shared_from_this();
  std::byte* const bytes = buffer->bytes.get();
  return grpc::Slice(bytes, size_bytes_, &BufferPool::TakeBack, buffer.release());
}

std::unique_ptr<BufferPool::Buffer> BufferPool::TakeIdle() {
  absl::MutexLock lock(&mu_);
  if (idle_.empty()) return nullptr;
  std::unique_ptr<Buffer> buffer = std::move(idle_.back());
  idle_.pop_back();
  return buffer;
}

void BufferPool::TakeBack(void* lent) {
  std::unique_ptr<Buffer> buffer(static_cast<Buffer*>(lent));
  const std::shared_ptr<BufferPool> home = std::move(buffer->home);
  absl::MutexLock lock(&home->mu_);
  home->idle_.push_back(std::move(buffer));
}

}  // namespace swiglu::bench
