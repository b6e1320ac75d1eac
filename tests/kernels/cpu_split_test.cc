// SPDX-License-Identifier: Apache-2.0
//
// How large work is cut into pieces, as pure functions.
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/cpu/split.h"

namespace swiglu::internal {
namespace {

// Addresses to compare; nothing is read there.
alignas(64) std::byte memory[4096];

std::vector<ForwardSegment> SegmentsOf(const std::vector<int64_t>& sizes) {
  std::vector<ForwardSegment> segments;
  for (const int64_t size : sizes) segments.push_back({memory, memory, memory, size});
  return segments;
}

TEST(SplitTest, CallsAMebibyteOfAllTensorsLarge) {
  // 6 bytes an element, 12, 12 and 24.
  EXPECT_FALSE(IsLarge<ForwardSegment>(Dtype::kFp16, 174762));
  EXPECT_TRUE(IsLarge<ForwardSegment>(Dtype::kFp16, 174763));
  EXPECT_FALSE(IsLarge<ForwardSegment>(Dtype::kFp32, 87381));
  EXPECT_TRUE(IsLarge<ForwardSegment>(Dtype::kFp32, 87382));
  EXPECT_FALSE(IsLarge<BackwardSegment>(Dtype::kBf16, 87381));
  EXPECT_TRUE(IsLarge<BackwardSegment>(Dtype::kBf16, 87382));
  EXPECT_FALSE(IsLarge<BackwardSegment>(Dtype::kFp32, 43690));
  EXPECT_TRUE(IsLarge<BackwardSegment>(Dtype::kFp32, 43691));
  EXPECT_FALSE(IsLarge<ForwardSegment>(Dtype::kFp16, 0));
  EXPECT_TRUE(IsLarge<BackwardSegment>(Dtype::kFp32, INT64_MAX));
}

TEST(SplitTest, GivesEveryThreadFourPiecesWithinBounds) {
  EXPECT_EQ(PieceElements(Dtype::kFp16, 1 << 20, 16), 16384);
  EXPECT_EQ(PieceElements(Dtype::kFp32, 1 << 20, 16), 16384);
  EXPECT_EQ(PieceElements(Dtype::kFp16, 200000, 16), 8192);   // 16 KiB
  EXPECT_EQ(PieceElements(Dtype::kFp32, 200000, 16), 4096);   // 16 KiB
  EXPECT_EQ(PieceElements(Dtype::kBf16, 1 << 30, 2), 65536);  // 128 KiB
  EXPECT_EQ(PieceElements(Dtype::kFp32, 1 << 30, 2), 32768);  // 128 KiB
  EXPECT_EQ(PieceElements(Dtype::kBf16, 200000, 2), 25000);
}

TEST(SplitTest, CountsTheElementsOfAllSegments) {
  EXPECT_EQ(NumElements(std::span<const ForwardSegment>()), 0);
  const std::vector<ForwardSegment> segments = SegmentsOf({3, 0, 5'000'000'000});
  EXPECT_EQ(NumElements(std::span(segments)), 5'000'000'003);
}

TEST(SplitTest, AdvancesOverTheEndsOfSegmentsAndOverEmptyOnes) {
  const std::vector<ForwardSegment> vector = SegmentsOf({0, 3, 0, 0, 5, 0});
  const std::span<const ForwardSegment> segments(vector);
  EXPECT_EQ(Advance(segments, {0, 0}, 0), (Position{1, 0}));
  EXPECT_EQ(Advance(segments, {0, 0}, 2), (Position{1, 2}));
  EXPECT_EQ(Advance(segments, {1, 2}, 1), (Position{4, 0}));
  EXPECT_EQ(Advance(segments, {1, 0}, 7), (Position{4, 4}));
  EXPECT_EQ(Advance(segments, {4, 4}, 1), (Position{6, 0}));
  EXPECT_EQ(Advance(segments, {0, 0}, 8), (Position{6, 0}));
}

TEST(SplitTest, ExtendsToAMultipleOfTheCutOrTheEndOfTheSegment) {
  const std::vector<ForwardSegment> vector = SegmentsOf({100, 0, 1000});
  const std::span<const ForwardSegment> segments(vector);
  EXPECT_EQ(ExtendToCut(segments, {0, 0}, 1), 64);
  EXPECT_EQ(ExtendToCut(segments, {0, 0}, 64), 64);
  EXPECT_EQ(ExtendToCut(segments, {0, 0}, 65), 100);
  EXPECT_EQ(ExtendToCut(segments, {0, 0}, 100), 100);
  EXPECT_EQ(ExtendToCut(segments, {0, 0}, 101), 164);
  EXPECT_EQ(ExtendToCut(segments, {2, 128}, 512), 512);
  EXPECT_EQ(ExtendToCut(segments, {2, 128}, 513), 576);
  EXPECT_EQ(ExtendToCut(segments, {2, 960}, 3), 40);
}

TEST(SplitTest, PartsOfASegmentKeepTheirTensors) {
  const ForwardSegment forward = Part(ForwardSegment{memory, memory + 100, memory + 200, 50}, 10, 5,
                                      ElementBytes(Dtype::kFp16));
  EXPECT_EQ(forward.e, memory + 20);
  EXPECT_EQ(forward.g, memory + 120);
  EXPECT_EQ(forward.h, memory + 220);
  EXPECT_EQ(forward.num_elements, 5);

  const BackwardSegment backward =
      Part(BackwardSegment{memory, memory + 100, memory + 200, memory + 300, memory + 400,
                           memory + 500, 25},
           3, 22, ElementBytes(Dtype::kFp32));
  EXPECT_EQ(backward.dw, memory + 12);
  EXPECT_EQ(backward.e, memory + 112);
  EXPECT_EQ(backward.g, memory + 212);
  EXPECT_EQ(backward.h, memory + 312);
  EXPECT_EQ(backward.df, memory + 412);
  EXPECT_EQ(backward.de, memory + 512);
  EXPECT_EQ(backward.num_elements, 22);
}

// All pieces, one after the other, are all elements in order, each once.
TEST(SplitTest, PiecesCoverEveryElementOnce) {
  // Segments that lie one behind the other, so that every element has an address of its own.
  const std::array<int64_t, 8> sizes = {0, 1, 700, 0, 64, 63, 200, 0};
  std::vector<ForwardSegment> vector;
  int64_t num_elements = 0;
  for (const int64_t size : sizes) {
    std::byte* const first = memory + 2 * num_elements;
    vector.push_back({first, first, first, size});
    num_elements += size;
  }
  const std::span<const ForwardSegment> segments(vector);
  ASSERT_EQ(num_elements, 1028);
  for (const int64_t piece : {1, 2, 63, 64, 65, 128, 1027, 1028}) {
    Position position;
    const std::byte* expected = memory;
    for (int64_t left = num_elements; left > 0; left -= piece) {
      const int64_t count = std::min(piece, left);
      int64_t num_computed = 0;
      ForEachPart(Dtype::kFp16, segments, position, count, [&](const ForwardSegment& part) {
        ASSERT_GT(part.num_elements, 0);
        EXPECT_EQ(part.e, expected);
        expected += 2 * part.num_elements;
        num_computed += part.num_elements;
      });
      ASSERT_EQ(num_computed, count);
      position = Advance(segments, position, count);
    }
    EXPECT_EQ(expected, memory + 2 * num_elements);
    EXPECT_EQ(position, (Position{sizes.size(), 0}));
  }
}

}  // namespace
}  // namespace swiglu::internal
