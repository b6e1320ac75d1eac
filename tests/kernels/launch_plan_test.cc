// SPDX-License-Identifier: Apache-2.0
//
// From segments to slots, tiles and a grid: pure functions, tested without a GPU. Addresses are
// made up.
#include "kernels/cuda/launch_plan.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <climits>
#include <cstdint>

namespace swiglu::internal {
namespace {

constexpr size_t kFp16Bytes = 2, kFp32Bytes = 4;

void* At(uintptr_t address) { return std::bit_cast<void*>(address); }

ForwardEntry EntryAt(uintptr_t e, uintptr_t g, uintptr_t h) {
  return ToEntry(ForwardSegment{At(e), At(g), At(h), 1});
}

// A segment of that many elements whose tensors all lie `offset` bytes past a boundary.
ForwardSegment Aligned(int64_t num_elements, uintptr_t offset = 0) {
  return {At(0x1000 + offset), At(0x2000 + offset), At(0x3000 + offset), num_elements};
}

template <class Entry>
Entry WithSlots(Entry entry, size_t element_bytes) {
  AlignSlots(entry, element_bytes);
  return entry;
}

TEST(LaunchPlanTest, PutsSlotsOnTheBoundariesOfTheFirstOutput) {
  EXPECT_EQ(WithSlots(EntryAt(0x1000, 0x2000, 0x3000), kFp16Bytes).shift, 0);
  EXPECT_EQ(WithSlots(EntryAt(0x1006, 0x2016, 0x3ff6), kFp16Bytes).shift, 3);
  EXPECT_EQ(WithSlots(EntryAt(0x100e, 0x200e, 0x300e), kFp16Bytes).shift, 7);
  EXPECT_EQ(WithSlots(EntryAt(0x100c, 0x200c, 0x300c), kFp32Bytes).shift, 3);
  EXPECT_EQ(WithSlots(EntryAt(0x1000, 0x2000, 0x300c), kFp32Bytes).shift, 3);
  const BackwardSegment segment{At(0x1000), At(0x1000), At(0x1000), At(0x1004),
                                At(0x1000), At(0x1000), 1};
  EXPECT_EQ(WithSlots(ToEntry(segment), kFp16Bytes).shift, 2);
}

TEST(LaunchPlanTest, FindsThatOneTensorIsUnlikeTheOthers) {
  EXPECT_TRUE(WithSlots(EntryAt(0x1006, 0x2016, 0x3ff6), kFp16Bytes).same_alignment);
  EXPECT_FALSE(WithSlots(EntryAt(0x1002, 0x2000, 0x3000), kFp16Bytes).same_alignment);
  EXPECT_FALSE(WithSlots(EntryAt(0x1000, 0x2008, 0x3000), kFp16Bytes).same_alignment);
  EXPECT_FALSE(WithSlots(EntryAt(0x1000, 0x2000, 0x300e), kFp16Bytes).same_alignment);
  for (int tensor = 0; tensor < 6; ++tensor) {
    uintptr_t at[6] = {0x1002, 0x2002, 0x3002, 0x4002, 0x5002, 0x6002};
    at[tensor] += 2;
    const BackwardSegment segment{At(at[0]), At(at[1]), At(at[2]), At(at[3]),
                                  At(at[4]), At(at[5]), 1};
    EXPECT_FALSE(WithSlots(ToEntry(segment), kFp16Bytes).same_alignment) << tensor;
  }
}

TEST(LaunchPlanTest, KnowsWhetherAllSegmentsAreAlike) {
  SegmentTable<ForwardEntry, 2> table;
  const std::array segments = {Aligned(4), Aligned(4, 2)};
  PlanLaunch(std::span<const ForwardSegment>(segments), kFp16Bytes, 0, {}, table);
  EXPECT_TRUE(table.same_alignment);
  const std::array mixed = {Aligned(4), ForwardSegment{At(0x1002), At(0x2000), At(0x3000), 4}};
  PlanLaunch(std::span<const ForwardSegment>(mixed), kFp16Bytes, 0, {}, table);
  EXPECT_FALSE(table.same_alignment);
}

TEST(LaunchPlanTest, CoversASegmentWithSlotsThePartialOnesIncluded) {
  EXPECT_EQ(NumSlots(1, 0, kFp16Bytes), 1);
  EXPECT_EQ(NumSlots(8, 0, kFp16Bytes), 1);
  EXPECT_EQ(NumSlots(9, 0, kFp16Bytes), 2);
  EXPECT_EQ(NumSlots(1, 7, kFp16Bytes), 1);
  EXPECT_EQ(NumSlots(8, 1, kFp16Bytes), 2);
  EXPECT_EQ(NumSlots(10, 7, kFp16Bytes), 3);
  EXPECT_EQ(NumSlots(4, 0, kFp32Bytes), 1);
  EXPECT_EQ(NumSlots(4, 3, kFp32Bytes), 2);
  EXPECT_EQ(NumSlots(int64_t{1} << 40, 1, kFp16Bytes), (int64_t{1} << 37) + 1);
}

TEST(LaunchPlanTest, TakesLargerBlocksWhenTheGridIsBounded) {
  EXPECT_EQ(ThreadsPerBlock(0), 128);
  EXPECT_EQ(ThreadsPerBlock(32), 256);
}

// An H100 has 228 KiB of shared memory in a multiprocessor; a block takes 1 KiB beside its own.
constexpr DeviceTraits kHopper{9, 233472};

TEST(LaunchPlanTest, LeavesRoomForTenBlocksOfForwardAndSevenOfBackwardOnHopper) {
  EXPECT_EQ(SharedBytesPerBlock(3, 1 << 18, 0, kHopper), 22272);
  EXPECT_EQ(SharedBytesPerBlock(6, 1 << 20, 0, kHopper), 32256);
  EXPECT_EQ(233472 / (22272 + 1024), 10);
  EXPECT_EQ(233472 / (32256 + 1024), 7);
}

TEST(LaunchPlanTest, BoundsResidentBlocksForMuchWorkInAnUnboundedGridAlone) {
  EXPECT_EQ(SharedBytesPerBlock(3, (1 << 18) - 1, 0, kHopper), 0);
  EXPECT_EQ(SharedBytesPerBlock(6, (1 << 20) - 1, 0, kHopper), 0);
  EXPECT_EQ(SharedBytesPerBlock(3, 1 << 18, 32, kHopper), 0);
}

TEST(LaunchPlanTest, BoundsNothingOnArchitecturesThatWereNotMeasured) {
  EXPECT_EQ(SharedBytesPerBlock(3, 1 << 20, 0, {8, 167936}), 0);
  EXPECT_EQ(SharedBytesPerBlock(6, 1 << 20, 0, {10, 233472}), 0);
  EXPECT_EQ(SharedBytesPerBlock(6, 1 << 20, 0, {}), 0);
}

TEST(LaunchPlanTest, StartsEarlyFromHopperOn) {
  EXPECT_FALSE(StartsEarly({}));
  EXPECT_FALSE(StartsEarly({8, 167936}));
  EXPECT_TRUE(StartsEarly(kHopper));
  EXPECT_TRUE(StartsEarly({10, 233472}));
}

TEST(LaunchPlanTest, PlansNothingWithoutElements) {
  SegmentTable<ForwardEntry, 2> table;
  const Grid none = PlanLaunch(std::span<const ForwardSegment>(), kFp16Bytes, 0, {}, table);
  EXPECT_EQ(none.num_blocks, 0);
  EXPECT_EQ(table.num_segments, 0);
  const std::array empty = {Aligned(0), Aligned(0), Aligned(0)};
  const Grid grid = PlanLaunch(std::span<const ForwardSegment>(empty), kFp16Bytes, 32, {}, table);
  EXPECT_EQ(grid.num_blocks, 0);
  EXPECT_EQ(table.num_segments, 0);
  EXPECT_EQ(table.num_tiles, 0);
}

TEST(LaunchPlanTest, PutsTensorsIntoTheTableInOrder) {
  const BackwardSegment segment{At(0x10), At(0x20), At(0x30), At(0x40), At(0x50), At(0x60), 7};
  SegmentTable<BackwardEntry, 1> table;
  PlanLaunch(std::span<const BackwardSegment>(&segment, 1), kFp16Bytes, 0, {}, table);
  const BackwardEntry& entry = table.entries[0];
  EXPECT_EQ(entry.inputs[0], At(0x10));
  EXPECT_EQ(entry.inputs[1], At(0x20));
  EXPECT_EQ(entry.inputs[2], At(0x30));
  EXPECT_EQ(entry.outputs[0], At(0x40));
  EXPECT_EQ(entry.outputs[1], At(0x50));
  EXPECT_EQ(entry.outputs[2], At(0x60));
  EXPECT_EQ(entry.num_elements, 7);
}

// A tile of 128 threads has 1024 elements of FP16.
TEST(LaunchPlanTest, NumbersTilesThroughAllSegmentsThatHaveElements) {
  const std::array segments = {Aligned(1),       Aligned(0),       Aligned(1024), Aligned(1025),
                               Aligned(1024, 2), Aligned(1023, 2), Aligned(5)};
  SegmentTable<ForwardEntry, 16> table;
  const Grid grid = PlanLaunch(std::span<const ForwardSegment>(segments), kFp16Bytes, 0, {}, table);
  ASSERT_EQ(table.num_segments, 6);
  const int64_t first_tiles[] = {0, 1, 2, 4, 6, 7};
  const int shifts[] = {0, 0, 0, 1, 1, 0};
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(table.entries[i].first_tile, first_tiles[i]) << i;
    EXPECT_EQ(table.entries[i].shift, shifts[i]) << i;
  }
  EXPECT_EQ(table.entries[5].num_elements, 5);
  EXPECT_EQ(table.num_tiles, 8);
  EXPECT_EQ(grid.num_blocks, 8);
  EXPECT_EQ(grid.threads_per_block, 128);
}

// A tile of a bounded grid has 2048.
TEST(LaunchPlanTest, BoundsTheGridButNotTheTiles) {
  const ForwardSegment segment = Aligned(100 * 2048);
  SegmentTable<ForwardEntry, 1> table;
  const std::span<const ForwardSegment> segments(&segment, 1);
  EXPECT_EQ(PlanLaunch(segments, kFp16Bytes, 32, {}, table).num_blocks, 32);
  EXPECT_EQ(table.num_tiles, 100);
  EXPECT_EQ(PlanLaunch(segments, kFp16Bytes, 100, {}, table).num_blocks, 100);
  EXPECT_EQ(PlanLaunch(segments, kFp16Bytes, 101, {}, table).num_blocks, 100);
  EXPECT_EQ(PlanLaunch(segments, kFp16Bytes, 0, {}, table).num_blocks, 200);
  EXPECT_EQ(PlanLaunch(segments, kFp32Bytes, 0, {}, table).num_blocks, 400);
}

TEST(LaunchPlanTest, StaysWithinTheLargestGrid) {
  const ForwardSegment segment = Aligned(int64_t{1} << 45);
  SegmentTable<ForwardEntry, 1> table;
  const Grid grid =
      PlanLaunch(std::span<const ForwardSegment>(&segment, 1), kFp16Bytes, 0, {}, table);
  EXPECT_EQ(grid.num_blocks, INT_MAX);
  EXPECT_EQ(table.num_tiles, int64_t{1} << 35);
}

TEST(LaunchPlanTest, FillsATableOfTheMostSegments) {
  const std::array<ForwardSegment, kMaxSegments> segments = [] {
    std::array<ForwardSegment, kMaxSegments> all;
    for (int i = 0; i < kMaxSegments; ++i) all[static_cast<size_t>(i)] = Aligned(i + 1);
    return all;
  }();
  SegmentTable<ForwardEntry, kMaxSegments> table;
  const Grid grid = PlanLaunch(std::span<const ForwardSegment>(segments), kFp16Bytes, 0, {}, table);
  EXPECT_EQ(table.num_segments, 256);
  EXPECT_EQ(grid.num_blocks, 256);
  EXPECT_EQ(table.entries[255].first_tile, 255);
}

}  // namespace
}  // namespace swiglu::internal
