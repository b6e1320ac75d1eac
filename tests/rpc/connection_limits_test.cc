// SPDX-License-Identifier: Apache-2.0
//
// How early a ping may come. What the library makes of the limits is tried over connections, in
// tests/wire/connection_limits_test.py.
#include "gtest/gtest.h"
#include "server/transport/rpc_server.h"

namespace swiglu::server {
namespace {

TEST(ConnectionLimitsTest, PingsMayComeASecondEarly) {
  EXPECT_EQ(PingIntervalWithSlack(absl::Seconds(10)), absl::Seconds(9));
  EXPECT_EQ(PingIntervalWithSlack(absl::Minutes(5)), absl::Seconds(299));
  EXPECT_EQ(PingIntervalWithSlack(absl::Seconds(2)), absl::Seconds(1));
}

TEST(ConnectionLimitsTest, PingsOfShortIntervalsMayComeHalfOfItEarly) {
  EXPECT_EQ(PingIntervalWithSlack(absl::Seconds(1)), absl::Milliseconds(500));
  EXPECT_EQ(PingIntervalWithSlack(absl::Milliseconds(1)), absl::Microseconds(500));
}

}  // namespace
}  // namespace swiglu::server
