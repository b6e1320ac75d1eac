// SPDX-License-Identifier: Apache-2.0
//
// Copies many pieces of memory with one launch. For small pieces, a call of cudaMemcpyAsync for
// each takes longer than the copies themselves.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>

#include "swiglu/cuda.h"

namespace swiglu {

// The most pieces of one launch, and what pointers and sizes are multiples of, in bytes.
inline constexpr int kMaxCopyPieces = 256;
inline constexpr int64_t kCopyAlignment = 16;

// `size_bytes` bytes from `from` to `to`.
struct CopyPiece {
  const void* from;
  void* to;
  int64_t size_bytes;  // may be 0
};

// Enqueues one kernel that copies all of `pieces` on `stream`, which belongs to the current device
// and may be capturing a graph. Does not synchronize. The kernel keeps the order of the stream.
//
// REQUIRES: the current device can read and write the memory of all pointers: its own memory, or
// pinned host memory that is mapped. No piece is written to where another one is read or written.
// The memory lives until the kernel is done; the array of `pieces` may go when the call returns.
//
// Returns cudaSuccess once the kernel is enqueued, or, if there are no bytes, without a launch.
// cudaErrorInvalidValue: too many pieces; a size that is negative or no multiple of kCopyAlignment;
// a pointer of a piece with bytes that is null or not aligned to kCopyAlignment; a negative limit.
// Any other error is the one that the launch reports. On error nothing has been enqueued.
// Thread-safe.
cudaError_t CopyCuda(std::span<const CopyPiece> pieces, const LaunchLimits& limits,
                     cudaStream_t stream);

}  // namespace swiglu
