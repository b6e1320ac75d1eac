// SPDX-License-Identifier: Apache-2.0
//
// When a cancellation stops what works on the call.
#include "swiglu/cancellation.h"

#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace swiglu::client {
namespace {

TEST(CancellationTest, IsRemembered) {
  Cancellation cancellation;
  EXPECT_FALSE(cancellation.is_cancelled());
  cancellation.Cancel();
  EXPECT_TRUE(cancellation.is_cancelled());
}

TEST(CancellationTest, StopsWhatWorksOnTheCall) {
  Cancellation cancellation;
  int num_stopped = 0;
  cancellation.SetStop([&] { ++num_stopped; });
  EXPECT_EQ(num_stopped, 0);
  cancellation.Cancel();
  EXPECT_EQ(num_stopped, 1);
}

TEST(CancellationTest, StopsAtOnceWhatBeginsLater) {
  Cancellation cancellation;
  cancellation.Cancel();
  int num_stopped = 0;
  cancellation.SetStop([&] { ++num_stopped; });
  EXPECT_EQ(num_stopped, 1);
}

TEST(CancellationTest, StopsWhatWorksNow) {
  Cancellation cancellation;
  int first = 0, second = 0;
  cancellation.SetStop([&] { ++first; });
  cancellation.SetStop([&] { ++second; });
  cancellation.Cancel();
  EXPECT_EQ(first, 0);
  EXPECT_EQ(second, 1);
}

TEST(CancellationTest, LeavesAloneWhatHasEnded) {
  Cancellation cancellation;
  int num_stopped = 0;
  cancellation.SetStop([&] { ++num_stopped; });
  cancellation.ClearStop();
  cancellation.Cancel();
  EXPECT_EQ(num_stopped, 0);
}

TEST(CancellationTest, IsRememberedBeforeItStopsAnything) {
  Cancellation cancellation;
  bool is_remembered = false;
  cancellation.SetStop([&] { is_remembered = cancellation.is_cancelled(); });
  cancellation.Cancel();
  EXPECT_TRUE(is_remembered);
}

TEST(CancellationTest, ClearingWaitsForAStopThatRuns) {
  Cancellation cancellation;
  absl::Notification runs, is_cleared;
  bool was_cleared = false;
  cancellation.SetStop([&] {
    runs.Notify();
    was_cleared = is_cleared.WaitForNotificationWithTimeout(absl::Milliseconds(20));
  });
  std::thread cancels([&] { cancellation.Cancel(); });
  runs.WaitForNotification();
  cancellation.ClearStop();
  is_cleared.Notify();
  cancels.join();
  EXPECT_FALSE(was_cleared);
}

}  // namespace
}  // namespace swiglu::client
