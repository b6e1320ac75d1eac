// SPDX-License-Identifier: Apache-2.0
//
// How a call becomes one launch: segments in, a table of them and a grid out. Pure functions on
// plain values, so that they are tested without a GPU. Private to the kernels; swiglu_kernel.cuh
// reads the table, launch.cuh launches it.
//
// Work is cut into slots and tiles. A slot is what one thread does at a time: 16 bytes of each
// tensor. A tile is one slot for each thread of a block, and never spans two segments. Tiles are
// numbered through all segments, and blocks take them in turn, so segments of mixed sizes balance.
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

// The `shift` of a segment whose pointers do not agree modulo 16.
inline constexpr int kUnalike = -1;

// A segment as the kernel sees it.
template <int kInputs, int kOutputs>
struct TableEntry {
  const void* inputs[kInputs];
  void* outputs[kOutputs];
  int64_t num_elements;
  int64_t first_tile;
  // How many elements lie between the 16-byte boundary at or before each pointer and the pointer
  // itself: slot i starts at element i * (elements per slot) - shift and is aligned. Or kUnalike.
  int shift;
};

using ForwardEntry = TableEntry<2, 1>;
using BackwardEntry = TableEntry<3, 3>;

inline ForwardEntry ToEntry(const ForwardSegment& s) {
  return {{s.e, s.g}, {s.h}, s.num_elements, 0, 0};
}
inline BackwardEntry ToEntry(const BackwardSegment& s) {
  return {{s.dw, s.e, s.g}, {s.h, s.df, s.de}, s.num_elements, 0, 0};
}

// All that a kernel is told, passed by value as its parameter. Entries from `num_segments` on are
// undefined.
template <class Entry, int kCapacity>
struct SegmentTable {
  int64_t num_tiles;
  int num_segments;
  Entry entries[kCapacity];
};

// A grid, as two numbers.
struct Grid {
  int num_blocks;
  int threads_per_block;
};

// Returns the entry's shift, see TableEntry.
template <int kInputs, int kOutputs>
int CommonShift(const TableEntry<kInputs, kOutputs>& entry, size_t element_bytes) {
  const auto remainder = [](const void* pointer) {
    return reinterpret_cast<uintptr_t>(pointer) % kSlotBytes;
  };
  const uintptr_t first = remainder(entry.inputs[0]);
  const auto agrees = [&](const void* pointer) { return remainder(pointer) == first; };
  const bool alike = std::all_of(std::begin(entry.inputs), std::end(entry.inputs), agrees) &&
                     std::all_of(std::begin(entry.outputs), std::end(entry.outputs), agrees);
  return alike ? static_cast<int>(first / element_bytes) : kUnalike;
}

// Returns how many slots cover a segment, the partial ones at its ends included.
inline int64_t NumSlots(int64_t num_elements, int shift, size_t element_bytes) {
  const auto per_slot = static_cast<int64_t>(kSlotBytes / element_bytes);
  return (num_elements + std::max(shift, 0) + per_slot - 1) / per_slot;
}

// Returns the block size. On an H100 wide blocks win half a percent once the tensors are large,
// and small blocks spread small work over more multiprocessors. A bounded grid gets the size that
// saturates PCIe there.
inline int ThreadsPerBlock(int64_t num_slots, int max_blocks) {
  constexpr int64_t kManySlots = int64_t{1} << 19;
  return max_blocks == 0 && num_slots >= kManySlots ? 1024 : 256;
}

// Fills `table` with the segments that have elements, at most kCapacity, and returns the grid for
// it; no blocks where there are no elements. REQUIRES: the segments have been checked.
template <class Segment, class Entry, int kCapacity>
Grid PlanLaunch(std::span<const Segment> segments, size_t element_bytes, int max_blocks,
                SegmentTable<Entry, kCapacity>& table) {
  int64_t num_slots = 0;
  table.num_segments = 0;
  for (const Segment& segment : segments) {
    if (segment.num_elements == 0) continue;
    Entry& entry = table.entries[table.num_segments++];
    entry = ToEntry(segment);
    entry.shift = CommonShift(entry, element_bytes);
    num_slots += NumSlots(entry.num_elements, entry.shift, element_bytes);
  }

  const int threads = ThreadsPerBlock(num_slots, max_blocks);
  table.num_tiles = 0;
  for (int i = 0; i < table.num_segments; ++i) {
    Entry& entry = table.entries[i];
    entry.first_tile = table.num_tiles;
    const int64_t slots = NumSlots(entry.num_elements, entry.shift, element_bytes);
    table.num_tiles += (slots + threads - 1) / threads;
  }
  const int64_t most_blocks = max_blocks == 0 ? INT_MAX : max_blocks;
  return {static_cast<int>(std::min(table.num_tiles, most_blocks)), threads};
}

}  // namespace swiglu::internal
