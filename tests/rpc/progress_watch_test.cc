// SPDX-License-Identifier: Apache-2.0
//
// When a thread counts as kept, by what it did and when it was looked at.
#include "server/transport/progress_watch.h"

#include <chrono>

#include "gtest/gtest.h"

namespace swiglu::server {
namespace {

using std::chrono::milliseconds;

const ProgressWatch::Time kFirstLook{std::chrono::hours(1)};

TEST(ProgressWatchTest, IsKeptWhoUsesTheProcessorAndBringsNothing) {
  ProgressWatch watch;
  EXPECT_FALSE(watch.IsKept(1, milliseconds(500), kFirstLook));
  EXPECT_FALSE(watch.IsKept(1, milliseconds(509), kFirstLook + milliseconds(20)));
  EXPECT_TRUE(watch.IsKept(1, milliseconds(510), kFirstLook + milliseconds(40)));
  EXPECT_TRUE(watch.IsKept(1, milliseconds(530), kFirstLook + milliseconds(60)));
}

TEST(ProgressWatchTest, IsNotKeptWhoBringsAnEventNowAndThen) {
  ProgressWatch watch;
  EXPECT_FALSE(watch.IsKept(1, milliseconds(0), kFirstLook));
  EXPECT_FALSE(watch.IsKept(2, milliseconds(20), kFirstLook + milliseconds(20)));
  EXPECT_FALSE(watch.IsKept(3, milliseconds(40), kFirstLook + milliseconds(40)));
  // The count begins again with the event.
  EXPECT_FALSE(watch.IsKept(3, milliseconds(49), kFirstLook + milliseconds(60)));
  EXPECT_TRUE(watch.IsKept(3, milliseconds(50), kFirstLook + milliseconds(80)));
}

// On a busy machine a thread waits for its core in between.
TEST(ProgressWatchTest, IsKeptThoughItGetsTheProcessorSeldom) {
  ProgressWatch watch;
  EXPECT_FALSE(watch.IsKept(1, milliseconds(0), kFirstLook));
  for (int i = 1; i < 10; ++i) {
    EXPECT_FALSE(watch.IsKept(1, milliseconds(i), kFirstLook + i * milliseconds(20)));
  }
  EXPECT_TRUE(watch.IsKept(1, milliseconds(10), kFirstLook + milliseconds(200)));
}

TEST(ProgressWatchTest, IsNotKeptWhoIsIdleForHours) {
  ProgressWatch watch;
  // A hundredth of a core, for timers and pings.
  for (int i = 0; i < 100'000; ++i) {
    ASSERT_FALSE(
        watch.IsKept(1, i * std::chrono::microseconds(200), kFirstLook + i * milliseconds(20)));
  }
}

}  // namespace
}  // namespace swiglu::server
