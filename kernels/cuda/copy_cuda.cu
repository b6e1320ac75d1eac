// SPDX-License-Identifier: Apache-2.0
//
// The kernel that copies pieces, and its launcher. Work is cut into tiles of 4 KiB: 16 bytes for
// each thread. Bytes moved: each is read once and written once.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>

#include "swiglu/cuda_copy.h"

namespace swiglu {
namespace internal {
namespace {

constexpr int kCopyThreads = 256;
// More blocks than this are not faster on any memory.
constexpr int64_t kMostCopyBlocks = 2048;

// A piece with bytes, in vectors of kCopyAlignment.
struct CopyEntry {
  const uint4* from;
  uint4* to;
  int64_t num_vectors;
  int64_t first_tile;  // of all tiles
};

template <int kCapacity>
struct CopyTable {
  int64_t num_tiles = 0;
  int num_entries = 0;
  CopyEntry entries[kCapacity];
};

// Returns the entry with that tile: the last one whose first tile is at most `tile`.
template <int kCapacity>
__device__ inline const CopyEntry& EntryOfTile(const CopyTable<kCapacity>& table, int64_t tile) {
  int low = 0;
  int high = table.num_entries;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (table.entries[middle].first_tile <= tile) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return table.entries[low];
}

template <int kCapacity>
__global__ void __launch_bounds__(kCopyThreads)
    CopyKernel(const __grid_constant__ CopyTable<kCapacity> table) {
  static_assert(sizeof(table) <= 32764, "the table is a kernel parameter");
  for (int64_t tile = blockIdx.x; tile < table.num_tiles; tile += gridDim.x) {
    const CopyEntry& entry = EntryOfTile(table, tile);
    const int64_t vector = (tile - entry.first_tile) * kCopyThreads + static_cast<int>(threadIdx.x);
    if (vector < entry.num_vectors) __stcg(entry.to + vector, __ldcg(entry.from + vector));
  }
}

bool IsCopyAligned(const void* pointer) {
  return pointer != nullptr && reinterpret_cast<uintptr_t>(pointer) % kCopyAlignment == 0;
}

bool IsGood(const CopyPiece& piece) {
  if (piece.size_bytes == 0) return true;
  return piece.size_bytes > 0 && piece.size_bytes % kCopyAlignment == 0 &&
         IsCopyAligned(piece.from) && IsCopyAligned(piece.to);
}

template <int kCapacity>
cudaError_t LaunchCopy(std::span<const CopyPiece> pieces, const LaunchLimits& limits,
                       cudaStream_t stream) {
  CopyTable<kCapacity> table;
  for (const CopyPiece& piece : pieces) {
    if (piece.size_bytes == 0) continue;
    const int64_t num_vectors = piece.size_bytes / kCopyAlignment;
    table.entries[table.num_entries++] = {static_cast<const uint4*>(piece.from),
                                          static_cast<uint4*>(piece.to), num_vectors,
                                          table.num_tiles};
    table.num_tiles += (num_vectors + kCopyThreads - 1) / kCopyThreads;
  }
  if (table.num_tiles == 0) return cudaSuccess;
  const int64_t most = limits.max_blocks == 0 ? kMostCopyBlocks : limits.max_blocks;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(std::min(most, table.num_tiles)));
  config.blockDim = dim3(kCopyThreads);
  config.stream = stream;
  void* arguments[] = {&table};
  return cudaLaunchKernelExC(&config, reinterpret_cast<const void*>(&CopyKernel<kCapacity>),
                             arguments);
}

}  // namespace
}  // namespace internal

cudaError_t CopyCuda(std::span<const CopyPiece> pieces, const LaunchLimits& limits,
                     cudaStream_t stream) {
  if (pieces.size() > kMaxCopyPieces || limits.max_blocks < 0 ||
      !std::all_of(pieces.begin(), pieces.end(), internal::IsGood)) {
    return cudaErrorInvalidValue;
  }
  // Each launch copies the whole table.
  if (pieces.size() <= 16) return internal::LaunchCopy<16>(pieces, limits, stream);
  return internal::LaunchCopy<kMaxCopyPieces>(pieces, limits, stream);
}

}  // namespace swiglu
