// SPDX-License-Identifier: Apache-2.0
//
// How many threads poll, as a function of how busy they are.
#include "server/transport/poller_count.h"

#include "gtest/gtest.h"

namespace swiglu::server {
namespace {

TEST(PollerCountTest, AddsOneWhileThereIsHardlyAPause) {
  EXPECT_EQ(ChoosePollerCount({1, 0.79}, 8), 1);
  EXPECT_EQ(ChoosePollerCount({1, 0.81}, 8), 2);
  EXPECT_EQ(ChoosePollerCount({4, 3.19}, 8), 4);
  EXPECT_EQ(ChoosePollerCount({4, 3.21}, 8), 5);
}

TEST(PollerCountTest, TakesOneAwayWhenTheOthersHavePausesEnough) {
  EXPECT_EQ(ChoosePollerCount({2, 0.61}, 8), 2);
  EXPECT_EQ(ChoosePollerCount({2, 0.59}, 8), 1);
  EXPECT_EQ(ChoosePollerCount({8, 4.21}, 8), 8);
  EXPECT_EQ(ChoosePollerCount({8, 4.19}, 8), 7);
}

TEST(PollerCountTest, KeepsOneThatIsIdle) { EXPECT_EQ(ChoosePollerCount({1, 0}, 8), 1); }

TEST(PollerCountTest, DoesNotCountLongWork) {
  EXPECT_EQ(ChoosePollerCount({1, 1.5, 1}, 8), 1);
  EXPECT_EQ(ChoosePollerCount({2, 1.5, 1}, 8), 1);
  EXPECT_EQ(ChoosePollerCount({1, 1.9, 1}, 8), 2);
}

// Times of two clocks, taken one after the other, may disagree. Without a poller nothing would ever
// change that again.
TEST(PollerCountTest, KeepsOneWhateverWasMeasured) {
  EXPECT_EQ(ChoosePollerCount({1, 0.5, 2}, 8), 1);
  EXPECT_EQ(ChoosePollerCount({1, -3, 0}, 8), 1);
  EXPECT_EQ(ChoosePollerCount({0, 0, 0}, 8), 1);
}

TEST(PollerCountTest, StaysWithinItsLimit) {
  EXPECT_EQ(ChoosePollerCount({8, 8}, 8), 8);
  EXPECT_EQ(ChoosePollerCount({1, 1}, 1), 1);
}

// Otherwise the number would swing under a steady load.
TEST(PollerCountTest, OneMorePollerIsNotTakenAwayAgainAtTheSameLoad) {
  for (int num_pollers = 1; num_pollers < 64; ++num_pollers) {
    for (double busy_threads = 0; busy_threads <= num_pollers; busy_threads += 0.05) {
      if (ChoosePollerCount({num_pollers, busy_threads}, 64) <= num_pollers) continue;
      EXPECT_GT(ChoosePollerCount({num_pollers + 1, busy_threads}, 64), num_pollers)
          << busy_threads;
    }
  }
}

}  // namespace
}  // namespace swiglu::server
