// SPDX-License-Identifier: Apache-2.0
//
// The times that a caller of ModelInfer asks for: their text, and which answers have them.
#include "server/service/server_timing.h"

#include <chrono>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace swiglu::server {
namespace {

using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

TEST(ServerTimingTest, HasTheQueueAndTheComputationInMilliseconds) {
  const PhaseTimes times{.receive = milliseconds(7),
                         .queue = microseconds(13),
                         .copy_in = milliseconds(8),
                         .compute = microseconds(205),
                         .copy_out = milliseconds(9)};
  EXPECT_EQ(ServerTiming(times), "queue;dur=0.013, compute;dur=0.205");
}

TEST(ServerTimingTest, AlwaysHasThreeDecimals) {
  EXPECT_EQ(ServerTiming({}), "queue;dur=0.000, compute;dur=0.000");
  EXPECT_EQ(ServerTiming({.queue = milliseconds(2), .compute = hours(1)}),
            "queue;dur=2.000, compute;dur=3600000.000");
}

TEST(ServerTimingTest, RoundsDown) {
  EXPECT_EQ(ServerTiming({.queue = nanoseconds(999), .compute = nanoseconds(1'001'999)}),
            "queue;dur=0.000, compute;dur=1.001");
}

TEST(HasServerTimingTest, IsTrueForEachAnswerEvenIfNothingHadToBeComputed) {
  InferReply reply;
  EXPECT_TRUE(HasServerTiming(reply));
}

TEST(HasServerTimingTest, IsTrueForAnErrorOnlyIfTheRequestWasComputed) {
  InferReply reply;
  reply.status = absl::InternalError("region 'r' was shrunk");
  reply.times.receive = reply.times.queue = milliseconds(1);
  EXPECT_FALSE(HasServerTiming(reply));
  reply.times.compute = nanoseconds(1);
  EXPECT_TRUE(HasServerTiming(reply));
}

}  // namespace
}  // namespace swiglu::server
