// SPDX-License-Identifier: Apache-2.0
//
// When a caller counts as stalled: after the base, and later the more there is to move.
#include "server/service/stall_limit.h"

#include <chrono>
#include <cstdint>

#include "gtest/gtest.h"

namespace swiglu::server {
namespace {

using std::chrono::milliseconds;

constexpr StallLimit kLimit{std::chrono::seconds(2)};
constexpr Clock::time_point kStart{std::chrono::hours(7)};

TEST(StallLimitTest, GivesAMessageOfNoSizeTheBase) {
  EXPECT_EQ(kLimit.Due(kStart, 0), kStart + milliseconds(2000));
}

TEST(StallLimitTest, AddsASecondForEach16MiB) {
  EXPECT_EQ(kLimit.Due(kStart, int64_t{1} << 24) - kStart, milliseconds(3000));
  EXPECT_EQ(kLimit.Due(kStart, int64_t{1} << 23) - kStart, milliseconds(2500));
}

TEST(StallLimitTest, TakesTheLargestMessage) {
  EXPECT_EQ(kLimit.Due(kStart, (int64_t{1} << 31) - 1) - kStart, milliseconds(2000 + 128'001));
}

TEST(StallLimitTest, IsFiveSecondsInADrainUnlessItIsLess) {
  EXPECT_EQ(kLimit.InDrain().Due(kStart, 0) - kStart, milliseconds(2000));
  const StallLimit patient{std::chrono::hours(1)};
  EXPECT_EQ(patient.InDrain().Due(kStart, int64_t{1} << 24) - kStart, milliseconds(6000));
}

}  // namespace
}  // namespace swiglu::server
