// SPDX-License-Identifier: Apache-2.0
//
// How many calls a peer may reset, by a clock that the test moves.
#include "server/connections/reset_limit.h"

#include <chrono>
#include <string>

#include "gtest/gtest.h"

namespace swiglu::server {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

const ResetLimit::Time kFirstReset{std::chrono::hours(1)};

TEST(ResetLimitTest, IsExceededByOneMoreThanMayComeAtOnce) {
  ResetLimit limit;
  for (int i = 0; i < 4096; ++i)
    ASSERT_FALSE(limit.IsExceeded("ipv4:10.0.0.1:1", kFirstReset)) << i;
  EXPECT_TRUE(limit.IsExceeded("ipv4:10.0.0.1:1", kFirstReset));
  // Its connection has been ended: whoever has that name now begins anew.
  EXPECT_FALSE(limit.IsExceeded("ipv4:10.0.0.1:1", kFirstReset));
}

TEST(ResetLimitTest, CountsEachPeerAlone) {
  ResetLimit limit;
  for (int i = 0; i < 4096; ++i) ASSERT_FALSE(limit.IsExceeded("ipv4:10.0.0.1:1", kFirstReset));
  EXPECT_FALSE(limit.IsExceeded("ipv4:10.0.0.1:2", kFirstReset));
  EXPECT_TRUE(limit.IsExceeded("ipv4:10.0.0.1:1", kFirstReset));
}

TEST(ResetLimitTest, IsNotExceededBy4000ASecond) {
  ResetLimit limit;
  for (int i = 0; i < 100'000; ++i) {
    ASSERT_FALSE(limit.IsExceeded("peer", kFirstReset + i * microseconds(250))) << i;
  }
}

TEST(ResetLimitTest, IsExceededBy19000ASecondWithinOneSecond) {
  ResetLimit limit;
  int num_resets = 1;
  while (!limit.IsExceeded("peer", kFirstReset + num_resets * microseconds(1'000'000 / 19'000))) {
    ASSERT_LT(++num_resets, 19'000);
  }
}

TEST(ResetLimitTest, HoldsThePeersOfTheLastSecond) {
  ResetLimit limit;
  for (int i = 0; i < 10'000; ++i) {
    EXPECT_FALSE(limit.IsExceeded("peer" + std::to_string(i), kFirstReset + i * milliseconds(10)));
    ASSERT_LE(limit.num_peers(), 64u);
  }
  // Those of one moment are all there.
  for (int i = 0; i < 1'000; ++i) {
    EXPECT_FALSE(limit.IsExceeded("other" + std::to_string(i), kFirstReset + seconds(1000)));
  }
  EXPECT_GE(limit.num_peers(), 1'000u);
}

}  // namespace
}  // namespace swiglu::server
