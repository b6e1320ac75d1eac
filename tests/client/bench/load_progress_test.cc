// SPDX-License-Identifier: Apache-2.0
//
// What is shown of each part of a load. Loads that began long ago are used, so that nothing waits.
#include "client/bench/load_progress.h"

#include "gtest/gtest.h"

namespace swiglu::bench {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

const Clock::time_point kBefore = Clock::now() - hours(1);

TEST(ProgressOfTest, TellsTheWarmUpAndThenTheWindowInSeconds) {
  const Pace pace({.warm_up = seconds(2), .duration = seconds(8)}, kBefore);
  const cli::Progress warm_up = ProgressOf(pace, kBefore + milliseconds(500));
  EXPECT_EQ(warm_up.what, "warming up");
  EXPECT_EQ(warm_up.fraction, 0.25);
  EXPECT_EQ(warm_up.detail, "0.5 of 2.0 s");
  const cli::Progress window = ProgressOf(pace, kBefore + seconds(4));
  EXPECT_EQ(window.what, "measuring");
  EXPECT_EQ(window.fraction, 0.25);
  EXPECT_EQ(window.detail, "2.0 of 8.0 s");
}

TEST(ProgressOfTest, TellsRequestsAndTheirRateIfANumberEndsTheLoad) {
  Pace pace({.warm_up = seconds(1), .num_requests = 8}, kBefore);
  pace.Next();
  pace.Next();
  const cli::Progress progress = ProgressOf(pace, kBefore + milliseconds(1500));
  EXPECT_EQ(progress.what, "measuring");
  EXPECT_EQ(progress.fraction, 0.25);
  EXPECT_EQ(progress.detail, "2 of 8 requests, 4/s");
  EXPECT_EQ(ProgressOf(pace, kBefore + seconds(1)).detail, "2 of 8 requests, 0/s");
}

TEST(ProgressOfTest, TellsThatTheLastAnswersAreMissing) {
  const Pace by_time({.warm_up = seconds(1), .duration = seconds(2)}, kBefore);
  EXPECT_EQ(ProgressOf(by_time, kBefore + seconds(3)).what, "waiting for the last answers");
  EXPECT_LT(ProgressOf(by_time, kBefore + seconds(3)).fraction, 0);
  Pace by_number({.warm_up = seconds(1), .num_requests = 1}, kBefore);
  by_number.Next();
  by_number.Next();
  EXPECT_EQ(ProgressOf(by_number, kBefore + seconds(2)).what, "waiting for the last answers");
  Pace stopped({.warm_up = seconds(1), .duration = hours(2)}, kBefore);
  stopped.Stop();
  EXPECT_EQ(ProgressOf(stopped, kBefore + seconds(2)).what, "waiting for the last answers");
}

}  // namespace
}  // namespace swiglu::bench
