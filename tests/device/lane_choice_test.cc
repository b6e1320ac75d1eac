// SPDX-License-Identifier: Apache-2.0
//
// Which device takes the next batch: a table of loads and choices.
#include "server/device/lane_choice.h"

#include <gtest/gtest.h>

#include <vector>

namespace swiglu::server {
namespace {

int Choose(std::vector<DeviceLoad> loads) { return ChooseDevice(loads); }

TEST(LaneChoiceTest, TakesTheOnlyDevice) { EXPECT_EQ(Choose({{100, 1}}), 0); }

TEST(LaneChoiceTest, TakesTheDeviceWithTheFewestBytes) {
  EXPECT_EQ(Choose({{300, 2}, {100, 1}, {200, 2}}), 1);
}

TEST(LaneChoiceTest, PassesOverADeviceWithoutAFreeLane) {
  EXPECT_EQ(Choose({{0, 0}, {300, 1}, {200, 1}}), 2);
}

TEST(LaneChoiceTest, TakesTheFirstOfEquals) { EXPECT_EQ(Choose({{0, 0}, {5, 1}, {5, 2}}), 1); }

TEST(LaneChoiceTest, TakesOfEqualsTheOneThatWasGivenLess) {
  EXPECT_EQ(Choose({{5, 1, 900}, {5, 1, 800}, {5, 1, 850}}), 1);
  EXPECT_EQ(Choose({{4, 1, 900}, {5, 1, 800}}), 0);
}

TEST(LaneChoiceTest, ASlowHourIsNotMadeUpForInALightOne) {
  constexpr int64_t kBatchBytes = int64_t{1} << 20;
  std::vector<DeviceLoad> loads = {{0, 1}, {0, 1}};
  for (int i = 0; i < 1000; ++i) GiveBatch(absl::MakeSpan(loads), 0, kBatchBytes);
  EXPECT_EQ(loads[0].outstanding_bytes, 1000 * kBatchBytes);
  loads[0].outstanding_bytes = 0;
  int num_given = 0;
  for (; ChooseDevice(loads) == 1; ++num_given) {
    GiveBatch(absl::MakeSpan(loads), 1, kBatchBytes);
    loads[1].outstanding_bytes = 0;
  }
  EXPECT_EQ(num_given, 64);
}

TEST(LaneChoiceTest, SaysSoWhenNoLaneIsFree) {
  EXPECT_EQ(Choose({{0, 0}, {0, 0}}), -1);
  EXPECT_EQ(Choose({}), -1);
}

}  // namespace
}  // namespace swiglu::server
