// SPDX-License-Identifier: Apache-2.0
//
// The copies that bring a batch's tensors together on a device, or take its results apart. Part of
// a CUDA lane.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "server/core/executor.h"
#include "swiglu/cuda_copy.h"

namespace swiglu::server {

// Whether kernels can use tensors at `data`.
inline bool IsAlignedForKernels(const void* data) {
  return reinterpret_cast<uintptr_t>(data) % swiglu::kCopyAlignment == 0;
}

// Collects copies and enqueues them together.
class CudaCopies {
 public:
  // For a device, between its own memory and where `placement` says that a batch's tensors are.
  CudaCopies(const Placement& placement, int ordinal);

  void Add(const void* from, void* to, int64_t size_bytes) {
    if (size_bytes > 0) pieces_.push_back({from, to, size_bytes});
  }

  bool empty() const { return pieces_.empty(); }

  // Enqueues all copies on `stream`, a stream of the current device. One launch does what a kernel
  // can copy. The driver copies the rest: single pieces, those that are not aligned, and those of
  // another device. On error, some may have been enqueued.
  cudaError_t Enqueue(cudaStream_t stream);

 private:
  const bool device_sees_all_;
  const int max_blocks_;
  std::vector<swiglu::CopyPiece> pieces_;
};

}  // namespace swiglu::server
