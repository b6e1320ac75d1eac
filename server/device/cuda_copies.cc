// SPDX-License-Identifier: Apache-2.0
//
// Which copies the kernel makes, and which the driver.
#include "server/device/cuda_copies.h"

#include <algorithm>

#include "absl/types/span.h"

namespace swiglu::server {
namespace {

// A kernel that reads or writes pinned host memory reaches the bus's full rate with so many blocks.
constexpr int kHostCopyBlocks = 32;

}  // namespace

CudaCopies::CudaCopies(const Placement& placement, int ordinal)
    : device_sees_all_(placement.device == kCpuDevice || placement.device == ordinal),
      max_blocks_(placement.is_resident ? 0 : kHostCopyBlocks) {}

cudaError_t CudaCopies::Enqueue(cudaStream_t stream) {
  const auto for_kernel = [this](const swiglu::CopyPiece& piece) {
    return device_sees_all_ && piece.size_bytes % swiglu::kCopyAlignment == 0 &&
           IsAlignedForKernels(piece.from) && IsAlignedForKernels(piece.to);
  };
  auto rest = std::stable_partition(pieces_.begin(), pieces_.end(), for_kernel);
  if (rest - pieces_.begin() <= 1) rest = pieces_.begin();
  absl::Span<const swiglu::CopyPiece> aligned(pieces_.data(),
                                              static_cast<size_t>(rest - pieces_.begin()));
  while (!aligned.empty()) {
    const auto now = aligned.subspan(0, swiglu::kMaxCopyPieces);
    const cudaError_t error =
        swiglu::CopyCuda({now.data(), now.size()}, {.max_blocks = max_blocks_}, stream);
    if (error != cudaSuccess) return error;
    aligned.remove_prefix(now.size());
  }
  for (; rest != pieces_.end(); ++rest) {
    const cudaError_t error = cudaMemcpyAsync(
        rest->to, rest->from, static_cast<size_t>(rest->size_bytes), cudaMemcpyDefault, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace swiglu::server
