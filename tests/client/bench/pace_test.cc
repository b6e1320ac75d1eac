// SPDX-License-Identifier: Apache-2.0
//
// When requests start and which count. Loads that began long ago are used, so that nothing waits.
#include "client/bench/pace.h"

#include <thread>

#include "gtest/gtest.h"

namespace swiglu::bench {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

const Clock::time_point kLongAgo = Clock::now() - hours(1);

TEST(ArrivalScheduleTest, ConstantArrivalsDoNotDrift) {
  ArrivalSchedule schedule(3, Arrivals::kConstant, 1);
  EXPECT_EQ(schedule.Next(), nanoseconds(333'333'333));
  EXPECT_EQ(schedule.Next(), nanoseconds(666'666'666));
  for (int i = 3; i < 3'000'000; ++i) schedule.Next();
  EXPECT_EQ(schedule.Next(), seconds(1'000'000));
}

TEST(ArrivalScheduleTest, PoissonArrivalsHaveTheRateAndItsSpread) {
  constexpr int kNum = 100'000;
  ArrivalSchedule schedule(1000, Arrivals::kPoisson, 1);
  nanoseconds last{0};
  int num_short = 0;
  for (int i = 0; i < kNum; ++i) {
    const nanoseconds next = schedule.Next();
    ASSERT_GE(next, last);
    num_short += next - last < milliseconds(1) ? 1 : 0;
    last = next;
  }
  EXPECT_NEAR(std::chrono::duration<double>(last).count(), 100, 2);
  // The share of gaps below the mean is 1 - 1/e; at a constant pace it would be 0 or 1.
  EXPECT_NEAR(static_cast<double>(num_short) / kNum, 0.632, 0.01);
}

TEST(ArrivalScheduleTest, IsTheSameForTheSameSeed) {
  ArrivalSchedule first(1000, Arrivals::kPoisson, 1), same(1000, Arrivals::kPoisson, 1);
  ArrivalSchedule other(1000, Arrivals::kPoisson, 2);
  const nanoseconds time = first.Next();
  EXPECT_EQ(same.Next(), time);
  EXPECT_NE(other.Next(), time);
}

TEST(PaceTest, ClosedLoopEndsWithItsWindow) {
  Pace pace({.warm_up = seconds(1), .duration = seconds(2)}, kLongAgo);
  EXPECT_EQ(pace.Next(), absl::nullopt);
  EXPECT_EQ(pace.NumNotSent(), 0);
}

TEST(PaceTest, ClosedLoopCountsWhatEndsInTheWindow) {
  const Clock::time_point start = Clock::now();
  Pace pace({.warm_up = hours(1), .duration = seconds(2)}, start);
  const absl::optional<Turn> turn = pace.Next();
  ASSERT_TRUE(turn.has_value());
  EXPECT_FALSE(pace.Counts(*turn, start + hours(1) - nanoseconds(1)));
  EXPECT_TRUE(pace.Counts(*turn, start + hours(1)));
  EXPECT_FALSE(pace.Counts(*turn, start + hours(1) + seconds(2)));
}

TEST(PaceTest, ClosedLoopEndsAfterItsNumber) {
  Pace pace({.warm_up = seconds(1), .num_requests = 2}, kLongAgo);
  for (int i = 0; i < 2; ++i) {
    const absl::optional<Turn> turn = pace.Next();
    ASSERT_TRUE(turn.has_value());
    EXPECT_TRUE(pace.Counts(*turn, Clock::now()));
  }
  EXPECT_EQ(pace.Next(), absl::nullopt);
}

TEST(PaceTest, RequestsOfTheWarmUpAreNotOfTheNumber) {
  Pace pace({.warm_up = hours(1), .num_requests = 1}, Clock::now());
  for (int i = 0; i < 3; ++i) {
    const absl::optional<Turn> turn = pace.Next();
    ASSERT_TRUE(turn.has_value());
    EXPECT_FALSE(pace.Counts(*turn, Clock::now()));
  }
}

TEST(PaceTest, OpenLoopGivesLateTurnsTheirIntendedTime) {
  Pace pace({.warm_up = seconds(1), .num_requests = 2, .rate = 2, .arrivals = Arrivals::kConstant},
            kLongAgo);
  const absl::optional<Turn> warm_up = pace.Next();
  ASSERT_TRUE(warm_up.has_value());
  EXPECT_EQ(warm_up->intended, kLongAgo + milliseconds(500));
  EXPECT_FALSE(pace.Counts(*warm_up, Clock::now()));
  for (const auto time : {milliseconds(1000), milliseconds(1500)}) {
    const absl::optional<Turn> turn = pace.Next();
    ASSERT_TRUE(turn.has_value());
    EXPECT_EQ(turn->intended, kLongAgo + time);
    EXPECT_TRUE(pace.Counts(*turn, Clock::now()));
  }
  EXPECT_EQ(pace.Next(), absl::nullopt);
}

TEST(PaceTest, OpenLoopWaitsForItsTurn) {
  const Clock::time_point start = Clock::now();
  Pace pace(
      {.warm_up = seconds(0), .num_requests = 1, .rate = 1000, .arrivals = Arrivals::kConstant},
      start);
  ASSERT_TRUE(pace.Next().has_value());
  EXPECT_GE(Clock::now(), start + milliseconds(1));
}

TEST(PaceTest, StopEndsAClosedLoop) {
  const Clock::time_point start = Clock::now();
  for (const int64_t num_requests : {0, 5}) {
    Pace pace({.warm_up = seconds(0), .duration = hours(1), .num_requests = num_requests}, start);
    const absl::optional<Turn> turn = pace.Next();
    ASSERT_TRUE(turn.has_value());
    EXPECT_FALSE(pace.was_stopped());
    const Clock::time_point done = Clock::now();
    pace.Stop();
    pace.Stop();
    EXPECT_TRUE(pace.was_stopped());
    EXPECT_LE(pace.end(), Clock::now());
    EXPECT_EQ(pace.Next(), absl::nullopt);
    EXPECT_TRUE(pace.Counts(*turn, done));
    pace.WaitUntil(start + hours(1));
  }
}

TEST(PaceTest, WhatEndsAfterTheStopDoesNotCountByTime) {
  const Clock::time_point start = Clock::now();
  Pace pace({.warm_up = seconds(0), .duration = hours(1)}, start);
  const absl::optional<Turn> turn = pace.Next();
  ASSERT_TRUE(turn.has_value());
  pace.Stop();
  EXPECT_FALSE(pace.Counts(*turn, pace.end()));
  // A number counts what was begun.
  Pace by_number({.warm_up = seconds(0), .num_requests = 5}, start);
  const absl::optional<Turn> begun = by_number.Next();
  by_number.Stop();
  EXPECT_TRUE(by_number.Counts(*begun, by_number.end() + seconds(1)));
}

TEST(PaceTest, StopWakesThoseThatWait) {
  const Clock::time_point start = Clock::now();
  Pace pace({.duration = hours(9), .rate = 0.001, .arrivals = Arrivals::kConstant}, start);
  std::thread next([&] { EXPECT_EQ(pace.Next(), absl::nullopt); });
  std::thread until([&] { pace.WaitUntil(start + hours(1)); });
  // Most often both wait by then; the outcome is the same if they do not yet.
  std::this_thread::sleep_for(milliseconds(20));
  pace.Stop();
  next.join();
  until.join();
  EXPECT_EQ(pace.NumNotSent(), 0);
}

TEST(PaceTest, AStopAfterTheEndIsNone) {
  Pace pace({.warm_up = seconds(1), .duration = seconds(2)}, kLongAgo);
  pace.Stop();
  EXPECT_FALSE(pace.was_stopped());
  EXPECT_EQ(pace.end(), kLongAgo + seconds(3));
}

TEST(PaceTest, OpenLoopTellsHowManyWereNotSentInItsWindow) {
  Pace pace(
      {.warm_up = seconds(1), .duration = seconds(2), .rate = 10, .arrivals = Arrivals::kConstant},
      kLongAgo);
  EXPECT_EQ(pace.Next(), absl::nullopt);
  EXPECT_EQ(pace.NumNotSent(), 20);
}

}  // namespace
}  // namespace swiglu::bench
