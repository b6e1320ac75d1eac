// SPDX-License-Identifier: Apache-2.0
//
// The one kernel, for forward and backward, all dtypes, one segment or many; arithmetic.cuh has
// the formulas and launch_plan.h says how work is divided into slots and tiles.
//
// Shapes: any number of elements per segment, flat. Accumulation: none; float32 inside an element.
// Bytes moved per element: forward 3, backward 6 times the element, each byte once. One slot of 16
// bytes per thread and plain accesses reach the memory's limit; cache hints, persistent blocks
// and bulk copies were each slower on an H100.
#pragma once

#include <cstdint>

#include "kernels/cuda/arithmetic.cuh"
#include "kernels/cuda/launch_plan.h"
#include "swiglu/segment.h"

namespace swiglu::internal {

inline constexpr int kWordsPerSlot = kSlotBytes / 4;

// The slot of a segment's tensors in registers, word by word.
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

// A slot that lies inside the segment and on a 16-byte boundary, `first` being its first element.
template <Dtype kDtype, int kInputs, int kOutputs>
__device__ inline void WholeSlot(const TableEntry<kInputs, kOutputs>& entry, int64_t first) {
  using Element = typename Word<kDtype>::Element;
  Slot<kInputs> inputs;
  Slot<kOutputs> outputs;
#pragma unroll
  for (int i = 0; i < kInputs; ++i) {
    const auto* from = static_cast<const Element*>(entry.inputs[i]) + first;
    const uint4 vector = *reinterpret_cast<const uint4*>(from);
    inputs[i][0] = vector.x;
    inputs[i][1] = vector.y;
    inputs[i][2] = vector.z;
    inputs[i][3] = vector.w;
  }
  ComputeSlot<kDtype, kInputs, kOutputs>(inputs, outputs);
#pragma unroll
  for (int i = 0; i < kOutputs; ++i) {
    auto* to = static_cast<Element*>(entry.outputs[i]) + first;
    *reinterpret_cast<uint4*>(to) =
        make_uint4(outputs[i][0], outputs[i][1], outputs[i][2], outputs[i][3]);
  }
}

// As many elements as a slot has, one by one: `first`, `first + stride` and so on, those of them
// that the segment has. All are read before any is written.
template <Dtype kDtype, int kInputs, int kOutputs>
__device__ inline void ElementwiseSlot(const TableEntry<kInputs, kOutputs>& entry, int64_t first,
                                       int stride) {
  using Element = typename Word<kDtype>::Element;
  constexpr int kPerWord = Word<kDtype>::kPerWord;
  Slot<kInputs> inputs = {};
  Slot<kOutputs> outputs;
#pragma unroll
  for (int k = 0; k < kWordsPerSlot * kPerWord; ++k) {
    const int64_t index = first + int64_t{k} * stride;
    if (index < 0 || index >= entry.num_elements) continue;
#pragma unroll
    for (int i = 0; i < kInputs; ++i) {
      const uint32_t element = static_cast<const Element*>(entry.inputs[i])[index];
      inputs[i][k / kPerWord] |= element << (k % kPerWord * 16);
    }
  }
  ComputeSlot<kDtype, kInputs, kOutputs>(inputs, outputs);
#pragma unroll
  for (int k = 0; k < kWordsPerSlot * kPerWord; ++k) {
    const int64_t index = first + int64_t{k} * stride;
    if (index < 0 || index >= entry.num_elements) continue;
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) {
      static_cast<Element*>(entry.outputs[i])[index] =
          static_cast<Element>(outputs[i][k / kPerWord] >> (k % kPerWord * 16));
    }
  }
}

// Returns the segment that `tile` belongs to: the last whose first tile is not beyond it.
template <class Entry, int kCapacity>
__device__ inline const Entry& EntryOf(const SegmentTable<Entry, kCapacity>& table, int64_t tile) {
  int low = 0;
  if constexpr (kCapacity > 1) {
    int high = table.num_segments;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      if (table.entries[middle].first_tile <= tile) {
        low = middle;
      } else {
        high = middle;
      }
    }
  }
  return table.entries[low];
}

template <Dtype kDtype, class Entry, int kCapacity>
__global__ void __launch_bounds__(1024)
    SwigluKernel(const __grid_constant__ SegmentTable<Entry, kCapacity> table) {
  static_assert(sizeof(table) <= 32764, "the table is a kernel parameter");
  constexpr int kPerSlot = kWordsPerSlot * Word<kDtype>::kPerWord;
  const int threads = static_cast<int>(blockDim.x);
  const int thread = static_cast<int>(threadIdx.x);

  for (int64_t tile = blockIdx.x; tile < table.num_tiles; tile += gridDim.x) {
    const Entry& entry = EntryOf(table, tile);
    const int64_t first_slot = (tile - entry.first_tile) * threads;
    if (entry.shift == kUnalike) {
      // Neighbouring threads take neighbouring elements, which still share memory transactions.
      ElementwiseSlot<kDtype>(entry, first_slot * kPerSlot + thread, threads);
      continue;
    }
    const int64_t first = (first_slot + thread) * kPerSlot - entry.shift;
    if (first >= 0 && first + kPerSlot <= entry.num_elements) {
      WholeSlot<kDtype>(entry, first);
    } else if (first < entry.num_elements) {
      ElementwiseSlot<kDtype>(entry, first, 1);
    }
  }
}

}  // namespace swiglu::internal
