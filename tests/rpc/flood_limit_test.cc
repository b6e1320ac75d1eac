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

constexpr uint64_t kPerStretch = FloodLimit::kBytesPerStretch;
// After which a flood is over.
constexpr milliseconds kLongSilence =
    FloodLimit::kPauseTime + FloodLimit::kBackOff + milliseconds(1);
const FloodLimit::Time kFloodStart{std::chrono::hours(1)};

// A connection that has sent nothing yet, and the limit of it.
struct WatchedConnection {
  // What to do with the connection when so many bytes more have come in so long.
  FloodVerdict Receive(uint64_t bytes, std::chrono::steady_clock::duration passed) {
    traffic.taken_bytes += bytes;
    now += passed;
    return limit.Judge(traffic, now);
  }
  // As the kernel does when the connection is paused: nothing comes, and for a while afterwards.
  FloodVerdict BeSilent(std::chrono::steady_clock::duration time) { return Receive(0, time); }

  FloodLimit::Time now = kFloodStart;
  ConnectionTraffic traffic{.taken_bytes = 1000};
  FloodLimit limit{traffic, now};
};

TEST(FloodLimitTest, AFloodedStretchPausesTheConnectionForAWhile) {
  WatchedConnection connection;
  EXPECT_EQ(connection.Receive(kPerStretch, milliseconds(100)), FloodVerdict::kNone);
  EXPECT_EQ(connection.Receive(kPerStretch + 1, milliseconds(99)), FloodVerdict::kNone);
  EXPECT_EQ(connection.BeSilent(milliseconds(1)), FloodVerdict::kPause);
  EXPECT_EQ(connection.BeSilent(milliseconds(199)), FloodVerdict::kPause);
  EXPECT_EQ(connection.BeSilent(milliseconds(1)), FloodVerdict::kNone);
}

TEST(FloodLimitTest, IsExceededByWhatLasts) {
  WatchedConnection connection;
  for (int i = 0; i < 19; ++i) {
    ASSERT_EQ(connection.Receive(kPerStretch + 1, milliseconds(100)), FloodVerdict::kPause) << i;
    ASSERT_EQ(connection.BeSilent(FloodLimit::kPauseTime), FloodVerdict::kNone) << i;
    // TCP waits.
    ASSERT_EQ(connection.BeSilent(milliseconds(1500)), FloodVerdict::kNone) << i;
  }
  EXPECT_EQ(connection.Receive(kPerStretch + 1, milliseconds(99)), FloodVerdict::kNone);
  EXPECT_EQ(connection.Receive(6000, milliseconds(1)), FloodVerdict::kEnd);
}

// Many connections are looked at more seldom.
TEST(FloodLimitTest, CountsTimeAndNotLooks) {
  WatchedConnection connection;
  ASSERT_EQ(connection.Receive(10 * kPerStretch + 1, milliseconds(1000)), FloodVerdict::kPause);
  ASSERT_EQ(connection.BeSilent(milliseconds(1000)), FloodVerdict::kNone);
  EXPECT_EQ(connection.Receive(10 * kPerStretch + 1, milliseconds(1000)), FloodVerdict::kEnd);
}

TEST(FloodLimitTest, IsNotExceededByWhatMayComeForLong) {
  WatchedConnection connection;
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(connection.Receive(kPerStretch, milliseconds(100)), FloodVerdict::kNone) << i;
    ASSERT_EQ(connection.Receive(5 * kPerStretch, milliseconds(500)), FloodVerdict::kNone) << i;
  }
}

// 150 MB that come without pauses within 1.9 s come with pauses, too.
TEST(FloodLimitTest, IsNotExceededByWhatComesAtOnce) {
  WatchedConnection connection;
  for (int i = 0; i < 100; ++i) {
    for (int j = 0; j < 19; ++j) {
      ASSERT_EQ(connection.Receive(8 << 20, milliseconds(100)), FloodVerdict::kPause) << i;
      // What was read ahead is still taken.
      ASSERT_EQ(connection.Receive(6 << 20, milliseconds(100)), FloodVerdict::kPause) << i;
      ASSERT_EQ(connection.BeSilent(milliseconds(400)), FloodVerdict::kNone) << i;
    }
    ASSERT_EQ(connection.BeSilent(kLongSilence), FloodVerdict::kNone) << i;
  }
}

TEST(FloodLimitTest, LeavesWhatComesForAMessageAlone) {
  WatchedConnection connection;
  connection.traffic.is_awaiting = true;
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(connection.Receive(1000 * kPerStretch, milliseconds(100)), FloodVerdict::kNone);
  }
  connection.traffic.is_awaiting = false;
  EXPECT_EQ(connection.Receive(kPerStretch + 1, milliseconds(100)), FloodVerdict::kPause);
}

TEST(FloodLimitTest, BeginsAnewWithEachCall) {
  WatchedConnection connection;
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(connection.Receive(190 * kPerStretch, milliseconds(1900)), FloodVerdict::kPause) << i;
    ++connection.traffic.num_steps;
    ASSERT_EQ(connection.Receive(1000 * kPerStretch, milliseconds(1)), FloodVerdict::kNone) << i;
  }
}

}  // namespace
}  // namespace swiglu::server
