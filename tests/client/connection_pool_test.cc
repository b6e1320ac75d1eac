// SPDX-License-Identifier: Apache-2.0
//
// Which servers the pool avoids.
#include "client/connection_pool.h"

#include "absl/time/clock.h"
#include "client/event_queue.h"
#include "gtest/gtest.h"
#include "tests/client/fake_server.h"

namespace swiglu::client {
namespace {

// A pool with a connection to each of two servers.
class ConnectionPoolTest : public ::testing::Test {
 protected:
  ConnectionPoolTest() {
    pool_.Release(pool_.Acquire(1, {}), 1, {});  // begins to connect
    while (pool_.ConnectedChannel(0) == nullptr || pool_.ConnectedChannel(1) == nullptr) {
      queue_.Poll();
    }
  }

  // Where the next message goes.
  int NextServer(const ServerSet& tried = {}, const RequestEnd& end = {}) {
    PooledChannel* const channel = pool_.Acquire(1, tried);
    pool_.Release(channel, 1, end);
    return channel->server;
  }

  FakeServer first_{[](const FakeCall& call) { return EchoInfer(call); }};
  FakeServer second_{[](const FakeCall& call) { return EchoInfer(call); }};
  EventQueue queue_;
  ConnectionPool pool_{{first_.address(), second_.address()}, 1, Credentials::Insecure()};
  ServerSet tried_second_ = [] {
    ServerSet set;
    set.Add(1);
    return set;
  }();
};

TEST_F(ConnectionPoolTest, ASilentServerIsAvoided) {
  for (int i = 0; i < 4; ++i) {
    pool_.AvoidIfSilent(0, absl::InfiniteFuture());
    EXPECT_EQ(NextServer(), 1);
  }
}

TEST_F(ConnectionPoolTest, AServerThatHasAnsweredIsNotSilent) {
  const absl::Time before = absl::Now();
  EXPECT_NE(NextServer({}, {.is_answered = true}), NextServer({}, {.is_answered = true}));
  pool_.AvoidIfSilent(0, before);
  EXPECT_NE(NextServer(), NextServer());
}

// Otherwise a message that one server has not answered would go there again.
TEST_F(ConnectionPoolTest, ASilentServerIsBetterThanOneThatWasTried) {
  for (int i = 0; i < 4; ++i) {
    pool_.AvoidIfSilent(0, absl::InfiniteFuture());
    EXPECT_EQ(NextServer(tried_second_), 0);
  }
  EXPECT_TRUE(pool_.HasOther(tried_second_));
}

}  // namespace
}  // namespace swiglu::client
