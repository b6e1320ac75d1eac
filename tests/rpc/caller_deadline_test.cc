// SPDX-License-Identifier: Apache-2.0
//
// Callers' deadlines, as far away as gRPC lets them be.
#include "server/transport/caller_deadline.h"

#include <gtest/gtest.h>

#include "grpc/support/time.h"

namespace swiglu::server {
namespace {

using std::chrono::nanoseconds;
using std::chrono::seconds;

const Clock::time_point kNow = Clock::time_point(seconds(1000));

gpr_timespec Left(int64_t whole_seconds, int32_t rest = 0) {
  return {whole_seconds, rest, GPR_TIMESPAN};
}

TEST(CallerDeadlineTest, IsSoFarAwayAsTheCallerHasTime) {
  EXPECT_EQ(CallerDeadline(Left(0), kNow), kNow);
  EXPECT_EQ(CallerDeadline(Left(0, 1), kNow), kNow + nanoseconds(1));
  EXPECT_EQ(CallerDeadline(Left(30, 5), kNow), kNow + seconds(30) + nanoseconds(5));
  EXPECT_EQ(CallerDeadline(Left(3600 * 24 * 365), kNow), kNow + seconds(3600 * 24 * 365));
}

TEST(CallerDeadlineTest, HasPassedWhenNoTimeIsLeft) {
  EXPECT_EQ(CallerDeadline(Left(-1, 999'999'999), kNow), kNow);
  EXPECT_EQ(CallerDeadline(gpr_inf_past(GPR_TIMESPAN), kNow), kNow);
}

TEST(CallerDeadlineTest, IsNoneWhenItIsFurtherThanNanosecondsReach) {
  constexpr int64_t kHour = 3600;
  // The first is the last whole hour of 64 bits; the last is the most that `grpc-timeout` says.
  for (const int64_t hours : {2'562'047, 2'562'048, 99'999'999}) {
    EXPECT_EQ(CallerDeadline(Left(hours * kHour), kNow), Clock::time_point::max()) << hours;
  }
  EXPECT_EQ(CallerDeadline(gpr_inf_future(GPR_TIMESPAN), kNow), Clock::time_point::max());
}

}  // namespace
}  // namespace swiglu::server
