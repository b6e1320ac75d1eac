// SPDX-License-Identifier: Apache-2.0
//
// Cuts large work into pieces for several threads. The segments of a call count as one row of
// elements, and a piece is a stretch of this row. Within a segment, pieces meet only at multiples
// of kCutElements. So each element keeps its place in the kernel's vectors, and every result has
// the same bits as without cuts, NaNs included. Pure; private to the kernels. All functions REQUIRE
// segments that have been checked.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "swiglu/dtype.h"
#include "swiglu/segment.h"

namespace swiglu::internal {

// Work with fewer bytes, counted over all tensors, is not worth waking threads for.
inline constexpr int64_t kMinSplitBytes = int64_t{1} << 20;

// Bytes of each tensor in a piece. With at least kMinPieceBytes, taking a piece costs little
// compared with computing it. With at most kMaxPieceBytes, all tensors of a piece fit into a core's
// cache.
inline constexpr int64_t kMinPieceBytes = int64_t{16} << 10;
inline constexpr int64_t kMaxPieceBytes = int64_t{128} << 10;

// On any instruction set, this is a multiple of the kernel's step. It is also a whole number of
// cache lines.
inline constexpr int64_t kCutElements = 64;

// Pieces for each thread, where the bounds above allow. If a thread is late or slow, the other
// threads take some of its pieces.
inline constexpr int64_t kPiecesPerThread = 4;

constexpr int NumTensors(const ForwardSegment&) { return 3; }
constexpr int NumTensors(const BackwardSegment&) { return 6; }

// The position of an element in the row. The position past the last element is {number of segments,
// 0}.
struct Position {
  size_t segment = 0;
  int64_t element = 0;  // within the segment

  bool operator==(const Position&) const = default;
};

template <class Segment>
int64_t NumElements(std::span<const Segment> segments) {
  int64_t num_elements = 0;
  for (const Segment& segment : segments) num_elements += segment.num_elements;
  return num_elements;
}

// Returns whether work on `num_elements` elements of this kind of segment is worth splitting.
template <class Segment>
constexpr bool IsLarge(Dtype dtype, int64_t num_elements) {
  const auto element_bytes = static_cast<int64_t>(ElementBytes(dtype));
  return num_elements > (kMinSplitBytes - 1) / (NumTensors(Segment{}) * element_bytes);
}

// Returns the least number of elements in a piece when `num_threads` share `num_elements`. Only the
// last piece may have fewer.
constexpr int64_t PieceElements(Dtype dtype, int64_t num_elements, int num_threads) {
  const auto element_bytes = static_cast<int64_t>(ElementBytes(dtype));
  const int64_t fair_share = num_elements / (kPiecesPerThread * num_threads);
  return std::clamp(fair_share, kMinPieceBytes / element_bytes, kMaxPieceBytes / element_bytes);
}

// Returns the position `count` elements after `position`. REQUIRES: at least `count` elements are
// left.
template <class Segment>
Position Advance(std::span<const Segment> segments, Position position, int64_t count) {
  position.element += count;
  while (position.segment < segments.size() &&
         position.element >= segments[position.segment].num_elements) {
    position.element -= segments[position.segment].num_elements;
    ++position.segment;
  }
  return position;
}

// Returns how many elements to take from `position` on: `count`, plus the elements up to the next
// place for a cut. REQUIRES: at least `count` elements are left.
template <class Segment>
int64_t ExtendToCut(std::span<const Segment> segments, Position position, int64_t count) {
  const Position end = Advance(segments, position, count);
  const int64_t beyond = end.element % kCutElements;
  if (beyond == 0) return count;
  return count + std::min(kCutElements - beyond, segments[end.segment].num_elements - end.element);
}

// The part of a segment with `count` elements from `first` on. An element has `size` bytes.
inline ForwardSegment Part(const ForwardSegment& s, int64_t first, int64_t count, size_t size) {
  const auto in = [&](const void* p) { return static_cast<const std::byte*>(p) + first * size; };
  const auto out = [&](void* p) { return static_cast<std::byte*>(p) + first * size; };
  return {in(s.e), in(s.g), out(s.h), count};
}
inline BackwardSegment Part(const BackwardSegment& s, int64_t first, int64_t count, size_t size) {
  const auto in = [&](const void* p) { return static_cast<const std::byte*>(p) + first * size; };
  const auto out = [&](void* p) { return static_cast<std::byte*>(p) + first * size; };
  return {in(s.dw), in(s.e), in(s.g), out(s.h), out(s.df), out(s.de), count};
}

// The `count` elements from `position` on may belong to several segments. Calls `compute` with each
// segment's part of them, in order. REQUIRES: at least `count` elements are left.
template <class Segment, class Compute>
void ForEachPart(Dtype dtype, std::span<const Segment> segments, Position position, int64_t count,
                 const Compute& compute) {
  for (; count > 0; ++position.segment, position.element = 0) {
    const Segment& segment = segments[position.segment];
    const int64_t n = std::min(count, segment.num_elements - position.element);
    if (n > 0) compute(Part(segment, position.element, n, ElementBytes(dtype)));
    count -= n;
  }
}

}  // namespace swiglu::internal
