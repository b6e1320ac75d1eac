// SPDX-License-Identifier: Apache-2.0
//
// How many bytes without messages a connection may send, by a clock that the test moves.
#include "server/connections/flood_limit.h"

#include <chrono>
#include <cstdint>

#include "gtest/gtest.h"

namespace swiglu::server {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint64_t kPerSlice = FloodLimit::kBytesPerSlice;
constexpr uint64_t kPerBurst = FloodLimit::kBytesPerBurst;
// After which a flood is over.
constexpr milliseconds kLongSilence =
    FloodLimit::kPauseTime + FloodLimit::kBackOff + milliseconds(1);
const FloodLimit::Time kFloodStart{std::chrono::hours(1)};

// A connection that has sent nothing yet, and the limit of it.
struct WatchedConnection {
  // True once the connection is past its limit, when so many bytes more have come in so long.
  bool Receive(uint64_t bytes, std::chrono::steady_clock::duration passed) {
    return Judge(bytes, passed) == FloodVerdict::kEnd;
  }
  FloodVerdict Judge(uint64_t bytes, std::chrono::steady_clock::duration passed) {
    traffic.taken_bytes += bytes;
    now += passed;
    return limit.Judge(traffic, now);
  }

  FloodLimit::Time now = kFloodStart;
  ConnectionTraffic traffic{.taken_bytes = 1000};
  FloodLimit limit{traffic, now};
};

TEST(FloodLimitTest, IsExceededByWhatLasts) {
  WatchedConnection connection;
  for (int i = 0; i < 3; ++i) ASSERT_FALSE(connection.Receive(kPerSlice + 1, milliseconds(500)));
  EXPECT_FALSE(connection.Receive(kPerSlice + 1, milliseconds(499)));
  EXPECT_TRUE(connection.Receive(4200, milliseconds(1)));
}

TEST(FloodLimitTest, IsNotExceededByWhatMayComeForLong) {
  WatchedConnection connection;
  for (int i = 0; i < 100; ++i) {
    ASSERT_FALSE(connection.Receive(kPerSlice, milliseconds(500))) << i;
    ASSERT_FALSE(connection.Receive(2 * kPerSlice, seconds(1))) << i;
  }
}

TEST(FloodLimitTest, IsNotExceededByWhatComesAtOnce) {
  WatchedConnection connection;
  for (int i = 0; i < 100; ++i) {
    for (int j = 0; j < 3; ++j) {
      ASSERT_FALSE(connection.Receive(1000 * kPerSlice, milliseconds(500))) << i;
    }
    ASSERT_FALSE(connection.Receive(0, kLongSilence)) << i;
  }
}

// A flood that is paused comes in bursts.
TEST(FloodLimitTest, SilenceAfterAPauseIsNoEndOfTheFlood) {
  WatchedConnection connection;
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(connection.Judge(5 * kPerBurst + 1, milliseconds(500)), FloodVerdict::kPause) << i;
    ASSERT_NE(connection.Judge(0, milliseconds(1500)), FloodVerdict::kEnd) << i;
  }
  EXPECT_EQ(connection.Judge(5 * kPerBurst + 1, milliseconds(500)), FloodVerdict::kEnd);
}

TEST(FloodLimitTest, ABurstPausesTheConnectionForAWhile) {
  WatchedConnection connection;
  EXPECT_EQ(connection.Judge(kPerBurst, milliseconds(100)), FloodVerdict::kNone);
  EXPECT_EQ(connection.Judge(kPerBurst + 1, milliseconds(99)), FloodVerdict::kNone);
  EXPECT_EQ(connection.Judge(0, milliseconds(1)), FloodVerdict::kPause);
  EXPECT_EQ(connection.Judge(0, milliseconds(399)), FloodVerdict::kPause);
  EXPECT_EQ(connection.Judge(0, milliseconds(1)), FloodVerdict::kNone);
}

TEST(FloodLimitTest, ACallEndsThePause) {
  WatchedConnection connection;
  ASSERT_EQ(connection.Judge(kPerBurst + 1, milliseconds(100)), FloodVerdict::kPause);
  ++connection.traffic.num_steps;
  EXPECT_EQ(connection.Judge(0, milliseconds(1)), FloodVerdict::kNone);
  EXPECT_EQ(connection.Judge(0, milliseconds(1)), FloodVerdict::kNone);
}

TEST(FloodLimitTest, DoesNotPauseWhatComesForAMessage) {
  WatchedConnection connection;
  connection.traffic.is_awaiting = true;
  EXPECT_EQ(connection.Judge(1000 * kPerBurst, milliseconds(100)), FloodVerdict::kNone);
}

TEST(FloodLimitTest, LeavesWhatComesForAMessageAlone) {
  WatchedConnection connection;
  connection.traffic.is_awaiting = true;
  for (int i = 0; i < 10; ++i) ASSERT_FALSE(connection.Receive(kPerSlice + 1, seconds(1)));
  connection.traffic.is_awaiting = false;
  for (int i = 0; i < 3; ++i) ASSERT_FALSE(connection.Receive(kPerSlice + 1, milliseconds(500)));
  EXPECT_TRUE(connection.Receive(kPerSlice + 1, milliseconds(500)));
}

TEST(FloodLimitTest, BeginsAnewWithEachCall) {
  WatchedConnection connection;
  for (int i = 0; i < 100; ++i) {
    for (int j = 0; j < 3; ++j) {
      ASSERT_FALSE(connection.Receive(1000 * kPerSlice, milliseconds(500))) << i;
    }
    ++connection.traffic.num_steps;
    ASSERT_FALSE(connection.Receive(1000 * kPerSlice, milliseconds(500))) << i;
  }
}

}  // namespace
}  // namespace swiglu::server
