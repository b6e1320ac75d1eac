// SPDX-License-Identifier: Apache-2.0
//
// Which devices get layers of which sizes.
#include "server/device/weights_placement.h"

#include <gtest/gtest.h>

#include <vector>

namespace swiglu::server {
namespace {

using Devices = std::vector<int>;

TEST(WeightsPlacementTest, SpreadsLayersByBytes) {
  WeightsPlacement placement({3, 5}, 1);
  EXPECT_EQ(placement.Place(100), Devices({3}));
  EXPECT_EQ(placement.Place(30), Devices({5}));
  EXPECT_EQ(placement.Place(50), Devices({5}));
  EXPECT_EQ(placement.Place(50), Devices({5}));
  EXPECT_EQ(placement.Place(30), Devices({3}));
  EXPECT_EQ(placement.Place(1), Devices({3}));  // 130 of both
}

TEST(WeightsPlacementTest, PutsReplicasOnDifferentDevices) {
  WeightsPlacement placement({0, 1, 2}, 2);
  EXPECT_EQ(placement.Place(10), Devices({0, 1}));
  EXPECT_EQ(placement.Place(10), Devices({2, 0}));
  EXPECT_EQ(placement.Place(10), Devices({1, 2}));
  EXPECT_EQ(placement.Place(10), Devices({0, 1}));
}

TEST(WeightsPlacementDeathTest, NeedsADeviceForEachReplica) {
  EXPECT_DEATH(WeightsPlacement({0}, 2), "check failed");
  EXPECT_DEATH(WeightsPlacement({0}, 0), "check failed");
}

}  // namespace
}  // namespace swiglu::server
