// SPDX-License-Identifier: Apache-2.0
//
// How large work is cut into pieces for several threads. A call's segments are taken as one row of
// elements; a piece is a run of it. Within a segment pieces meet only at multiples of
// kCutElements: each element keeps its place in the kernel's vectors, and even a NaN the bits that
// it has without cuts. Pure; private to the kernels. All of it REQUIRES segments that have been
// checked.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "swiglu/segment.h"

namespace swiglu::internal {

// Work of fewer bytes, of all tensors together, is not worth waking threads for.
inline constexpr int64_t kMinSplitBytes = int64_t{1} << 20;

// Bytes of each tensor in a piece: at least so many that taking a piece costs little beside
// computing it, and at most so many that a piece's tensors share a core's cache.
inline constexpr int64_t kMinPieceBytes = int64_t{16} << 10;
inline constexpr int64_t kMaxPieceBytes = int64_t{128} << 10;

// More than a step of the kernel on any instruction set, and whole cache lines.
inline constexpr int64_t kCutElements = 64;

// Pieces for each thread, where the bounds above allow: a thread that is late or slow leaves some
// of its own to the others.
inline constexpr int64_t kPiecesPerThread = 4;

constexpr int NumTensors(const ForwardSegment&) { return 3; }
constexpr int NumTensors(const BackwardSegment&) { return 6; }

// An element of the row; past the last one, the number of segments and 0.
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

// Returns whether `num_elements` of segments like `Segment` are worth splitting.
template <class Segment>
constexpr bool IsLarge(Dtype dtype, int64_t num_elements) {
  const auto element_bytes = static_cast<int64_t>(ElementBytes(dtype));
  return num_elements > (kMinSplitBytes - 1) / (NumTensors(Segment{}) * element_bytes);
}

// Returns how many elements a piece has at least, the last one aside, when `num_threads` share
// `num_elements`.
constexpr int64_t PieceElements(Dtype dtype, int64_t num_elements, int num_threads) {
  const auto element_bytes = static_cast<int64_t>(ElementBytes(dtype));
  const int64_t fair_share = num_elements / (kPiecesPerThread * num_threads);
  return std::clamp(fair_share, kMinPieceBytes / element_bytes, kMaxPieceBytes / element_bytes);
}

// Returns the position `count` elements after `position`. REQUIRES: so many are left.
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

// Returns how many elements to take from `position` on: `count`, and as many more as there are up
// to the next place for a cut. REQUIRES: `count` are left.
template <class Segment>
int64_t ExtendToCut(std::span<const Segment> segments, Position position, int64_t count) {
  const Position end = Advance(segments, position, count);
  const int64_t beyond = end.element % kCutElements;
  if (beyond == 0) return count;
  return count + std::min(kCutElements - beyond, segments[end.segment].num_elements - end.element);
}

// `count` elements of a segment from `first` on.
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

// Calls `compute` with every part of a segment in the `count` elements from `position` on, in
// order. REQUIRES: so many are left.
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
