// SPDX-License-Identifier: Apache-2.0
//
// How many bytes without messages a connection may send, by a clock that the test moves.
#include "server/rpc/flood_limit.h"

#include <chrono>
#include <cstdint>

#include "gtest/gtest.h"

namespace swiglu::server {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint64_t kAMebibyte = 1 << 20;
const FloodLimit::Time kFloodStart{std::chrono::hours(1)};

// A connection that has sent nothing yet, and the limit of it.
struct WatchedConnection {
  // True once the connection is past its limit, when so many bytes more have come in so long.
  bool Receive(uint64_t bytes, std::chrono::steady_clock::duration passed = milliseconds(20)) {
    traffic.received_bytes += bytes;
    now += passed;
    return limit.IsExceeded(traffic, now);
  }

  FloodLimit::Time now = kFloodStart;
  ConnectionTraffic traffic;
  FloodLimit limit{traffic, now};
};

TEST(FloodLimitTest, IsExceededByMoreThanMayComeAtOnce) {
  WatchedConnection connection;
  EXPECT_FALSE(connection.Receive(4 * kAMebibyte, milliseconds(0)));
  EXPECT_TRUE(connection.Receive(1, milliseconds(0)));
}

TEST(FloodLimitTest, IsNotExceededByTwoMebibytesASecond) {
  WatchedConnection connection;
  for (int i = 0; i < 100; ++i) ASSERT_FALSE(connection.Receive(2 * kAMebibyte, seconds(1))) << i;
}

TEST(FloodLimitTest, IsExceededByThreeMebibytesASecond) {
  WatchedConnection connection;
  for (int i = 0; i < 4; ++i) ASSERT_FALSE(connection.Receive(3 * kAMebibyte, seconds(1))) << i;
  EXPECT_TRUE(connection.Receive(3 * kAMebibyte, seconds(1)));
}

TEST(FloodLimitTest, SavesUpNoMoreThanMayComeAtOnce) {
  WatchedConnection connection;
  ASSERT_FALSE(connection.Receive(0, seconds(3600)));
  EXPECT_TRUE(connection.Receive(4 * kAMebibyte + 1, milliseconds(0)));
}

TEST(FloodLimitTest, LeavesWhatComesForAMessageAlone) {
  WatchedConnection connection;
  connection.traffic.is_awaiting = true;
  EXPECT_FALSE(connection.Receive(1000 * kAMebibyte));
  connection.traffic.is_awaiting = false;
  EXPECT_FALSE(connection.Receive(4 * kAMebibyte, milliseconds(0)));
  EXPECT_TRUE(connection.Receive(1, milliseconds(0)));
}

TEST(FloodLimitTest, BeginsAnewWithACall) {
  WatchedConnection connection;
  for (int i = 0; i < 100; ++i) {
    ASSERT_FALSE(connection.Receive(4 * kAMebibyte, milliseconds(0))) << i;
    ++connection.traffic.num_steps;
    ASSERT_FALSE(connection.Receive(4 * kAMebibyte, milliseconds(0))) << i;
  }
}

TEST(FloodLimitTest, LetsTheRestOfALostMessageCome) {
  WatchedConnection connection;
  connection.traffic.lost_bytes += 10 * kAMebibyte;
  EXPECT_FALSE(connection.Receive(14 * kAMebibyte, milliseconds(0)));
  EXPECT_TRUE(connection.Receive(1, milliseconds(0)));
}

TEST(FloodLimitTest, LetsNoMoreOfALostMessageComeThanWindowsHold) {
  WatchedConnection connection;
  connection.traffic.lost_bytes += 1000 * kAMebibyte;
  ++connection.traffic.num_steps;
  EXPECT_FALSE(connection.Receive(0));
  EXPECT_FALSE(connection.Receive(68 * kAMebibyte, milliseconds(0)));
  EXPECT_TRUE(connection.Receive(1, milliseconds(0)));
}

}  // namespace
}  // namespace swiglu::server
