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
  bool Receive(uint64_t bytes, std::chrono::steady_clock::duration passed) {
    traffic.taken_bytes += bytes;
    now += passed;
    return limit.IsExceeded(traffic, now);
  }

  FloodLimit::Time now = kFloodStart;
  ConnectionTraffic traffic{.taken_bytes = 1000};
  FloodLimit limit{traffic, now};
};

TEST(FloodLimitTest, IsExceededByMoreThanMayComeAtOnce) {
  WatchedConnection connection;
  EXPECT_FALSE(connection.Receive(64 * kAMebibyte, milliseconds(0)));
  EXPECT_TRUE(connection.Receive(1, milliseconds(0)));
}

TEST(FloodLimitTest, IsExceededByLessOnceItLasts) {
  WatchedConnection connection;
  EXPECT_FALSE(connection.Receive(8 * kAMebibyte + 1, milliseconds(1999)));
  EXPECT_TRUE(connection.Receive(0, milliseconds(1)));
}

TEST(FloodLimitTest, IsNotExceededByTwoMebibytesASecond) {
  WatchedConnection connection;
  ASSERT_FALSE(connection.Receive(4 * kAMebibyte, seconds(0)));
  for (int i = 0; i < 100; ++i) ASSERT_FALSE(connection.Receive(2 * kAMebibyte, seconds(1))) << i;
  EXPECT_TRUE(connection.Receive(1, seconds(0)));
}

TEST(FloodLimitTest, LeavesWhatComesForAMessageAlone) {
  WatchedConnection connection;
  connection.traffic.is_awaiting = true;
  EXPECT_FALSE(connection.Receive(1000 * kAMebibyte, seconds(0)));
  EXPECT_FALSE(connection.Receive(1000 * kAMebibyte, seconds(10)));
  connection.traffic.is_awaiting = false;
  EXPECT_FALSE(connection.Receive(64 * kAMebibyte, milliseconds(0)));
  EXPECT_TRUE(connection.Receive(1, milliseconds(0)));
}

TEST(FloodLimitTest, BeginsAnewWithEachCall) {
  WatchedConnection connection;
  for (int i = 0; i < 100; ++i) {
    ASSERT_FALSE(connection.Receive(64 * kAMebibyte, milliseconds(10))) << i;
    ++connection.traffic.num_steps;
    ASSERT_FALSE(connection.Receive(64 * kAMebibyte, seconds(10))) << i;
  }
}

}  // namespace
}  // namespace swiglu::server
