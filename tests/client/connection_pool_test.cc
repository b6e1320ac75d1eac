// SPDX-License-Identifier: Apache-2.0
//
// Which servers the pool avoids. Nobody listens at the addresses.
#include "client/connection_pool.h"

#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace swiglu::client {
namespace {

TEST(ConnectionPoolTest, AServerThatHasAnsweredIsNotSilent) {
  ConnectionPool pool({"127.0.0.1:1", "127.0.0.1:2"}, 1);
  const absl::Time before = absl::Now();
  PooledChannel* const channel = pool.Acquire(1, {});
  pool.Release(channel, 1, {.is_answered = true});
  pool.AvoidIfSilent(channel->server, before);
  EXPECT_EQ(pool.TimeUntilOpen(), absl::InfiniteDuration());
  pool.AvoidIfSilent(channel->server, absl::Now() + absl::Hours(1));
  EXPECT_LT(pool.TimeUntilOpen(), absl::InfiniteDuration());
}

TEST(ConnectionPoolTest, AServerThatHasNotAnsweredIsSilent) {
  ConnectionPool pool({"127.0.0.1:1", "127.0.0.1:2"}, 1);
  const absl::Time before = absl::Now();
  PooledChannel* const channel = pool.Acquire(1, {});
  pool.Release(channel, 1, {});
  pool.AvoidIfSilent(channel->server, before);
  EXPECT_LT(pool.TimeUntilOpen(), absl::InfiniteDuration());
}

}  // namespace
}  // namespace swiglu::client
