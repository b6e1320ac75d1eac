// SPDX-License-Identifier: Apache-2.0
//
// Loads and stores for a segment whose pointers do not all have the same remainder modulo 16. No
// slot of such a segment is aligned in all tensors. Slots are laid out so that the first output is
// aligned. The other tensors are also read and written as aligned vectors, which are shifted by
// whole bytes in registers. The memory traffic is the same as for aligned tensors, except at the
// two ends of the stretch that a warp works on. Private to the kernels.
#pragma once

#include <cstdint>

#include "kernels/cuda/arithmetic.cuh"
#include "kernels/cuda/launch_plan.h"

namespace swiglu::internal {

inline constexpr int kWarpSize = 32;

// Returns how many bytes `pointer` lies past the 16-byte boundary before it; 0 on a boundary.
__device__ inline uint32_t BytesPastBoundary(const void* pointer) {
  return static_cast<uint32_t>(reinterpret_cast<uintptr_t>(pointer) % kSlotBytes);
}

// Takes the 32 bytes of `low` followed by `high`, and returns the 16 bytes from byte `offset` on.
// REQUIRES: offset is even and below 16.
__device__ inline uint4 BytesFrom(uint32_t offset, const uint4& low, const uint4& high) {
  uint32_t words[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
  // This shifts by 8 and by 4 bytes. The code below shifts by the remaining bytes within a word.
#pragma unroll
  for (int step = 2; step >= 1; --step) {
    const bool moves = (offset & (4u * step)) != 0;
#pragma unroll
    for (int i = 0; i + step < 8; ++i) words[i] = moves ? words[i + step] : words[i];
  }
  const uint32_t bits = offset % 4 * 8;
  return make_uint4(
      __funnelshift_r(words[0], words[1], bits), __funnelshift_r(words[1], words[2], bits),
      __funnelshift_r(words[2], words[3], bits), __funnelshift_r(words[3], words[4], bits));
}

// Reads the 16 bytes at `from`, which may be unaligned, out of the aligned vectors that have them.
__device__ inline uint4 LoadUnaligned(const void* from) {
  const uint32_t offset = BytesPastBoundary(from);
  const auto* boundary = reinterpret_cast<const uint4*>(static_cast<const char*>(from) - offset);
  const uint4 low = boundary[0];
  if (offset == 0) return low;
  return BytesFrom(offset, low, boundary[1]);
}

// Each thread of the warp stores its `vector` at its `to`. If `to` is not aligned, each lane except
// the first writes one aligned vector: the last bytes of the lane before it, and then its own first
// bytes. The bytes at the two ends of the warp fill no aligned vector. The first and the last lane
// write them element by element. REQUIRES: all lanes of the warp call this, with consecutive `to`.
template <class Element>
__device__ inline void StoreUnaligned(void* to, const uint4& vector) {
  const uint32_t offset = BytesPastBoundary(to);
  if (offset == 0) {
    *static_cast<uint4*>(to) = vector;
    return;
  }
  constexpr uint32_t kAll = 0xFFFFFFFFu;
  const uint4 before =
      make_uint4(__shfl_up_sync(kAll, vector.x, 1), __shfl_up_sync(kAll, vector.y, 1),
                 __shfl_up_sync(kAll, vector.z, 1), __shfl_up_sync(kAll, vector.w, 1));
  const int lane = static_cast<int>(threadIdx.x % kWarpSize);
  if (lane > 0) {
    *reinterpret_cast<uint4*>(static_cast<char*>(to) - offset) =
        BytesFrom(kSlotBytes - offset, before, vector);
  }
  if (lane > 0 && lane < kWarpSize - 1) return;
  // Stores the first lane's bytes before the boundary, or the last lane's bytes behind it.
  const uint32_t words[4] = {vector.x, vector.y, vector.z, vector.w};
  constexpr int kElements = kSlotBytes / sizeof(Element);
#pragma unroll
  for (int k = 0; k < kElements; ++k) {
    const bool past_boundary = k * sizeof(Element) >= kSlotBytes - offset;
    if (past_boundary == (lane > 0)) {
      static_cast<Element*>(to)[k] =
          static_cast<Element>(words[k * sizeof(Element) / 4] >> (k * sizeof(Element) % 4 * 8));
    }
  }
}

}  // namespace swiglu::internal
