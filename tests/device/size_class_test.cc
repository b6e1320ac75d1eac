// SPDX-License-Identifier: Apache-2.0
//
// The size classes of slabs: sizes, borders and waste.
#include "server/memory/size_class.h"

#include <gtest/gtest.h>

#include <array>

#include "tests/byte_units.h"

namespace swiglu::server {
namespace {

TEST(SizeClassTest, ClassesArePowersOfTwoThenFourToEachDoubling) {
  constexpr std::array<size_t, 12> kExpectedKiB = {4, 8, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80};
  for (size_t i = 0; i < kExpectedKiB.size(); ++i) {
    EXPECT_EQ(SizeClassBytes(static_cast<int>(i)), kExpectedKiB[i] * kKiB) << "class " << i;
  }
}

TEST(SizeClassTest, EveryClassHoldsItsOwnSizeAndNotOneByteMore) {
  for (int i = 0; i + 1 < kNumSizeClasses; ++i) {
    EXPECT_EQ(SizeClass(SizeClassBytes(i)), i);
    EXPECT_EQ(SizeClass(SizeClassBytes(i) + 1), i + 1);
  }
}

TEST(SizeClassTest, OneByteTakesTheSmallestClass) { EXPECT_EQ(SizeClass(1), 0); }

TEST(SizeClassTest, WastesAtMostAQuarterAboveTheSmallOnes) {
  for (int i = SizeClass(kFirstSteppedSlabBytes); i + 1 < kNumSizeClasses; ++i) {
    const size_t smallest_of_next = SizeClassBytes(i) + 1;
    EXPECT_LE(SizeClassBytes(i + 1) - smallest_of_next, smallest_of_next / 4);
  }
}

TEST(SizeClassTest, TheLargestClassIsTheStatedLimit) {
  EXPECT_EQ(SizeClassBytes(kNumSizeClasses - 1), kLargestSlabBytes);
}

}  // namespace
}  // namespace swiglu::server
