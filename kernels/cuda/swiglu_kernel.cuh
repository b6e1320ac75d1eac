// SPDX-License-Identifier: Apache-2.0
//
// The kernels, for forward and backward and all dtypes: one kernel for a single segment, one for a
// table of segments. arithmetic.cuh has the formulas; launch_plan.h says how work is divided into
// slots and tiles.
//
// Shapes: any number of elements per segment, flat. Accumulation: none, because elements are
// independent. The arithmetic of an element is float32. Bytes moved for each element: 3 times its
// size in forward, 6 times in backward; each byte is moved once. One slot of 16 bytes per thread
// reaches the memory's bandwidth. More slots per thread, other cache hints, persistent blocks and
// bulk copies were each slower on an H100: docs/performance-record.md.
#pragma once

#include <cstdint>

#include "kernels/cuda/arithmetic.cuh"
#include "kernels/cuda/early_start.cuh"
#include "kernels/cuda/launch_plan.h"
#include "kernels/cuda/realign.cuh"
#include "swiglu/dtype.h"
#include "swiglu/segment.h"

namespace swiglu::internal {

inline constexpr int kWordsPerSlot = kSlotBytes / 4;

// A slot in registers: the words of each tensor.
template <int kTensors>
using Slot = uint32_t[kTensors][kWordsPerSlot];

template <Dtype kDtype, int kInputs, int kOutputs>
__device__ inline void ComputeSlot(const Slot<kInputs>& inputs, Slot<kOutputs>& outputs) {
#pragma unroll
  for (int word = 0; word < kWordsPerSlot; ++word) {
    uint32_t in[kInputs], out[kOutputs];
#pragma unroll
    for (int i = 0; i < kInputs; ++i) in[i] = inputs[i][word];
    ComputeWord<kDtype>(in, out);
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) outputs[i][word] = out[i];
  }
}

__device__ inline void ToWords(const uint4& vector, uint32_t (&words)[kWordsPerSlot]) {
  words[0] = vector.x;
  words[1] = vector.y;
  words[2] = vector.z;
  words[3] = vector.w;
}

__device__ inline uint4 ToVector(const uint32_t (&words)[kWordsPerSlot]) {
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// Computes a slot that lies inside the segment and on a 16-byte boundary. `first` is the slot's
// first element. Loads and stores bypass the L1, because each byte is touched only once.
template <Dtype kDtype, int kInputs, int kOutputs>
__device__ inline void WholeSlot(const TableEntry<kInputs, kOutputs>& entry, int64_t first) {
  using Element = typename Word<kDtype>::Element;
  Slot<kInputs> inputs;
  Slot<kOutputs> outputs;
#pragma unroll
  for (int i = 0; i < kInputs; ++i) {
    const auto* from = static_cast<const Element*>(entry.inputs[i]) + first;
    ToWords(__ldcg(reinterpret_cast<const uint4*>(from)), inputs[i]);
  }
  LetNextKernelStart();
  ComputeSlot<kDtype, kInputs, kOutputs>(inputs, outputs);
#pragma unroll
  for (int i = 0; i < kOutputs; ++i) {
    auto* to = static_cast<Element*>(entry.outputs[i]) + first;
    __stcg(reinterpret_cast<uint4*>(to), ToVector(outputs[i]));
  }
}

// Computes a slot that lies inside the segment, as do the slots before and after it. All lanes of
// the warp call this, with neighbouring slots.
template <Dtype kDtype, int kInputs, int kOutputs>
__device__ inline void RealignedSlot(const TableEntry<kInputs, kOutputs>& entry, int64_t first) {
  using Element = typename Word<kDtype>::Element;
  Slot<kInputs> inputs;
  Slot<kOutputs> outputs;
#pragma unroll
  for (int i = 0; i < kInputs; ++i) {
    ToWords(LoadUnaligned(static_cast<const Element*>(entry.inputs[i]) + first), inputs[i]);
  }
  ComputeSlot<kDtype, kInputs, kOutputs>(inputs, outputs);
#pragma unroll
  for (int i = 0; i < kOutputs; ++i) {
    StoreUnaligned<Element>(static_cast<Element*>(entry.outputs[i]) + first, ToVector(outputs[i]));
  }
}

// Computes, element by element, a slot that may lie only partly inside the segment. Such slots are
// rare, so the code is small rather than fast. If the function were inlined, every launch would
// fetch its instructions.
template <Dtype kDtype, int kInputs, int kOutputs>
__device__ __noinline__ void PartialSlot(const TableEntry<kInputs, kOutputs>& entry,
                                         int64_t first) {
  using Element = typename Word<kDtype>::Element;
#pragma unroll 1
  for (int k = 0; k < kWordsPerSlot * Word<kDtype>::kPerWord; ++k) {
    const int64_t index = first + k;
    if (index < 0 || index >= entry.num_elements) continue;
    uint32_t in[kInputs], out[kOutputs];
#pragma unroll
    for (int i = 0; i < kInputs; ++i) in[i] = static_cast<const Element*>(entry.inputs[i])[index];
    ComputeWord<kDtype>(in, out);
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) {
      static_cast<Element*>(entry.outputs[i])[index] = static_cast<Element>(out[i]);
    }
  }
}

// The first element of this thread's slot in tile number `tile` of the segment. This element may
// lie before the segment's first or past its last one.
template <Dtype kDtype, class Entry>
__device__ inline int64_t FirstElement(const Entry& entry, int64_t tile) {
  constexpr int kPerSlot = kWordsPerSlot * Word<kDtype>::kPerWord;
  return (tile * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * kPerSlot -
         entry.shift;
}

// Computes the slot at `first`, which may lie inside the segment, partly inside, or outside.
// REQUIRES: the segment's pointers agree modulo 16.
template <Dtype kDtype, class Entry>
__device__ inline void AlikeSlot(const Entry& entry, int64_t first) {
  constexpr int kPerSlot = kWordsPerSlot * Word<kDtype>::kPerWord;
  if (first >= 0 && first + kPerSlot <= entry.num_elements) {
    WholeSlot<kDtype>(entry, first);
  } else if (first < entry.num_elements) {
    PartialSlot<kDtype>(entry, first);
  }
}

// As AlikeSlot, for a segment whose pointers do not agree modulo 16.
template <Dtype kDtype, class Entry>
__device__ inline void UnalikeSlot(const Entry& entry, int64_t first) {
  constexpr int kPerSlot = kWordsPerSlot * Word<kDtype>::kPerWord;
  const int64_t warp_first = first - static_cast<int>(threadIdx.x) % kWarpSize * kPerSlot;
  if (warp_first >= kPerSlot && warp_first + (kWarpSize + 1) * kPerSlot <= entry.num_elements) {
    RealignedSlot<kDtype>(entry, first);
  } else if (first < entry.num_elements) {
    PartialSlot<kDtype>(entry, first);
  }
}

// Returns the segment that `tile` belongs to: the last segment whose first tile is at most `tile`.
// The search first looks at the place that is right if all segments have the same size. A good
// guess saves steps of the search, and each step waits for a read of the table.
template <class Entry, int kCapacity>
__device__ inline const Entry& EntryOf(const SegmentTable<Entry, kCapacity>& table, int64_t tile) {
  int low = 0;
  int high = table.num_segments;
  const int guess =
      min(static_cast<int>(static_cast<float>(tile) * table.segments_per_tile), high - 1);
  if (table.entries[guess].first_tile > tile) {
    high = guess;
  } else if (guess + 1 == high || table.entries[guess + 1].first_tile > tile) {
    return table.entries[guess];
  } else {
    low = guess + 1;
  }
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

// Computes one segment whose pointers agree modulo 16, with a block for each tile.
template <Dtype kDtype, class Entry>
__global__ void __launch_bounds__(256) SegmentKernel(const __grid_constant__ Entry entry) {
  AwaitEarlierWork();
  AlikeSlot<kDtype>(entry, FirstElement<kDtype>(entry, blockIdx.x));
}

// Computes any segments, in any number of blocks. kRealigns: the pointers of some segment do not
// agree modulo 16. Tables with such a segment have a kernel of their own, because it needs more
// registers.
template <Dtype kDtype, class Entry, int kCapacity, bool kRealigns>
__global__ void __launch_bounds__(256)
    TableKernel(const __grid_constant__ SegmentTable<Entry, kCapacity> table) {
  static_assert(sizeof(table) <= 32764, "the table is a kernel parameter");
  AwaitEarlierWork();
  for (int64_t tile = blockIdx.x; tile < table.num_tiles; tile += gridDim.x) {
    const Entry& entry = EntryOf(table, tile);
    const int64_t first = FirstElement<kDtype>(entry, tile - entry.first_tile);
    if (kRealigns && !entry.same_alignment) {
      UnalikeSlot<kDtype>(entry, first);
    } else {
      AlikeSlot<kDtype>(entry, first);
    }
  }
}

}  // namespace swiglu::internal
