// SPDX-License-Identifier: Apache-2.0
//
// Buffers of one size that are used again and again. The echo copies requests into them, and lends
// them to gRPC as slices of its answers.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/support/slice.h"

namespace swiglu::bench {

// Thread-safe. Users and slices own the pool through shared pointers, so the pool lives until the
// last slice is gone, even after its users. It keeps as many buffers as were ever in use at once.
class BufferPool : public std::enable_shared_from_this<BufferPool> {
 public:
  // A pool of buffers of `size_bytes`, 1 or more.
  static std::shared_ptr<BufferPool> Create(size_t size_bytes);

  size_t size_bytes() const { return size_bytes_; }

  // A slice over a whole buffer. The caller may write its bytes until the slice is sent. The buffer
  // comes back when gRPC has let go of the slice and all parts of it.
  grpc::Slice Take();

 private:
  struct Buffer {
    std::shared_ptr<BufferPool> home;  // while it is in use
    std::unique_ptr<std::byte[]> bytes;
  };

  explicit BufferPool(size_t size_bytes) : size_bytes_(size_bytes) {}

  static void TakeBack(void* buffer);
  std::unique_ptr<Buffer> TakeIdle();

  const size_t size_bytes_;
  absl::Mutex mu_;
  std::vector<std::unique_ptr<Buffer>> idle_ ABSL_GUARDED_BY(mu_);
};

}  // namespace swiglu::bench
