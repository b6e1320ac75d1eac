// SPDX-License-Identifier: Apache-2.0
//
// Turns a call into one launch: its segments become a table and a grid. Pure functions on plain
// values, so that they are tested without a GPU. Private to the kernels. swiglu_kernel.cuh reads
// the table, swiglu_cuda.cu launches the kernel.
//
// Work is cut into slots and tiles. A slot is what one thread does at a time: 16 bytes of each
// tensor. A tile is one slot for each thread of a block, and never spans two segments. Tiles are
// numbered across all segments, and blocks take them in turn. So segments of mixed sizes are shared
// out evenly.
#pragma once

#include <algorithm>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>

#include "swiglu/segment.h"

namespace swiglu::internal {

inline constexpr int kSlotBytes = 16;

// A segment as the kernel sees it.
template <int kInputs, int kOutputs>
struct TableEntry {
  static constexpr int kNumTensors = kInputs + kOutputs;

  const void* inputs[kInputs];
  void* outputs[kOutputs];
  int64_t num_elements;
  int64_t first_tile;
  // `shift` elements lie between the start of the first output and the 16-byte boundary at or
  // before it. Slot i starts at element i * (elements per slot) - shift, so the slots of the first
  // output are aligned.
  int shift;
  // Whether the slots are aligned in every tensor of the segment.
  bool same_alignment;
};

using ForwardEntry = TableEntry<2, 1>;
using BackwardEntry = TableEntry<3, 3>;

inline ForwardEntry ToEntry(const ForwardSegment& s) {
  return {{s.e, s.g}, {s.h}, s.num_elements, 0, 0, false};
}
inline BackwardEntry ToEntry(const BackwardSegment& s) {
  return {{s.dw, s.e, s.g}, {s.h, s.df, s.de}, s.num_elements, 0, 0, false};
}

// The whole input of a kernel, passed by value as its parameter. Entries from `num_segments` on are
// undefined.
template <class Entry, int kCapacity>
struct SegmentTable {
  int64_t num_tiles;
  int num_segments;
  bool same_alignment;      // whether `same_alignment` is true for all entries
  float segments_per_tile;  // num_segments / num_tiles, to guess a tile's segment
  Entry entries[kCapacity];
};

// The facts about a device that the choice of a launch depends on.
struct DeviceTraits {
  int compute_capability = 0;  // the major number
  int shared_bytes = 0;        // shared memory of a multiprocessor
};

// How a kernel is launched.
struct Grid {
  int num_blocks;
  int threads_per_block;
  // Dynamic shared memory that a block asks for and does not use: it bounds how many blocks a
  // multiprocessor runs at once. 0: no bound.
  int shared_bytes;
};

// Sets the entry's `shift` and `same_alignment`, which TableEntry describes.
template <int kInputs, int kOutputs>
void AlignSlots(TableEntry<kInputs, kOutputs>& entry, size_t element_bytes) {
  const auto remainder = [](const void* pointer) {
    return reinterpret_cast<uintptr_t>(pointer) % kSlotBytes;
  };
  const uintptr_t first = remainder(entry.outputs[0]);
  const auto agrees = [&](const void* pointer) { return remainder(pointer) == first; };
  entry.same_alignment = std::all_of(std::begin(entry.inputs), std::end(entry.inputs), agrees) &&
                         std::all_of(std::begin(entry.outputs), std::end(entry.outputs), agrees);
  entry.shift = static_cast<int>(first / element_bytes);
}

// Returns how many slots cover a segment, the partial ones at its ends included.
inline int64_t NumSlots(int64_t num_elements, int shift, size_t element_bytes) {
  const auto per_slot = static_cast<int64_t>(kSlotBytes / element_bytes);
  return (num_elements + shift + per_slot - 1) / per_slot;
}

// Returns whether a problem with this many slots runs faster with a bound on resident blocks.
// Smaller problems fit into one or two waves of blocks, or into the L2.
inline bool IsLarge(int num_tensors, int64_t num_slots) {
  return num_slots >= (num_tensors <= 3 ? int64_t{1} << 18 : int64_t{1} << 20);
}

// Returns the threads of a block. Small blocks start soonest and spread small work over more
// multiprocessors. If `max_blocks` limits the grid, as for host memory, the blocks must be larger
// to saturate PCIe.
inline int ThreadsPerBlock(int max_blocks) { return max_blocks == 0 ? 128 : 256; }

// Returns `Grid::shared_bytes`. Only a large problem in device memory gets a bound. A certain
// number of threads keeps the memory busy. Further threads only spread the accesses over more rows
// of the memory. On an H100, forward (3 tensors) is fastest with 1280 threads on a multiprocessor,
// and backward (6 tensors) with 896. Other architectures have not been measured and get no bound.
inline int SharedBytesPerBlock(int num_tensors, int64_t num_slots, int max_blocks,
                               const DeviceTraits& device) {
  constexpr int kReservedBytes = 1024;  // shared memory that the system takes for each block
  constexpr int kGranularity = 256;
  if (max_blocks != 0 || device.compute_capability != 9) return 0;
  if (!IsLarge(num_tensors, num_slots)) return 0;
  const int resident_blocks = (num_tensors <= 3 ? 1280 : 896) / ThreadsPerBlock(max_blocks);
  const int share = device.shared_bytes / resident_blocks - kReservedBytes;
  return std::max(share, 0) / kGranularity * kGranularity;
}

// Returns whether a kernel may start while the kernel before it in the stream is still finishing.
// On Hopper and newer GPUs it may, because there each kernel itself waits for the results of the
// kernel before it.
inline bool StartsEarly(const DeviceTraits& device) { return device.compute_capability >= 9; }

// Fills `table` with the segments that have elements, at most kCapacity, and returns the grid for
// it. The grid has no blocks if there are no elements. REQUIRES: the segments have been checked.
template <class Segment, class Entry, int kCapacity>
Grid PlanLaunch(std::span<const Segment> segments, size_t element_bytes, int max_blocks,
                const DeviceTraits& device, SegmentTable<Entry, kCapacity>& table) {
  int64_t num_slots = 0;
  table.num_segments = 0;
  table.same_alignment = true;
  for (const Segment& segment : segments) {
    if (segment.num_elements == 0) continue;
    Entry& entry = table.entries[table.num_segments++];
    entry = ToEntry(segment);
    AlignSlots(entry, element_bytes);
    table.same_alignment &= entry.same_alignment;
    num_slots += NumSlots(entry.num_elements, entry.shift, element_bytes);
  }

  const int threads = ThreadsPerBlock(max_blocks);
  table.num_tiles = 0;
  for (int i = 0; i < table.num_segments; ++i) {
    Entry& entry = table.entries[i];
    entry.first_tile = table.num_tiles;
    const int64_t slots = NumSlots(entry.num_elements, entry.shift, element_bytes);
    table.num_tiles += (slots + threads - 1) / threads;
  }
  table.segments_per_tile = static_cast<float>(table.num_segments) /
                            static_cast<float>(std::max<int64_t>(table.num_tiles, 1));
  const int64_t most_blocks = max_blocks == 0 ? INT_MAX : max_blocks;
  return {static_cast<int>(std::min(table.num_tiles, most_blocks)), threads,
          SharedBytesPerBlock(Entry::kNumTensors, num_slots, max_blocks, device)};
}

}  // namespace swiglu::internal
