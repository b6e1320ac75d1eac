// SPDX-License-Identifier: Apache-2.0
//
// Which servers and connections the pool avoids.
#include "client/connection_pool.h"

#include "absl/time/clock.h"
#include "client/event_queue.h"
#include "gtest/gtest.h"
#include "tests/client/fake_server.h"
#include "tests/client/http2_peer.h"

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

// Connects `channel`, and blocks until it is in that state.
void WaitForState(const PooledChannel& channel, grpc_connectivity_state state) {
  while (true) {
    const grpc_connectivity_state now = channel.channel->GetState(/*try_to_connect=*/true);
    if (now == state) return;
    channel.channel->WaitForStateChange(now, absl::ToChronoTime(absl::InfiniteFuture()));
  }
}

// The live one has more bytes under way.
TEST(OneServerPoolTest, ALiveConnectionIsBetterThanOneThatIsLost) {
  Http2Peer peer({PeerConnection{}, {.after_greeting = Then::kClose, .is_last = true}});
  ConnectionPool pool({peer.address()}, 2, Credentials::Insecure());
  PooledChannel* const live = pool.Acquire(1000, {});
  WaitForState(*live, GRPC_CHANNEL_READY);
  PooledChannel* const lost = pool.Acquire(1, {});
  ASSERT_NE(lost, live);
  WaitForState(*lost, GRPC_CHANNEL_TRANSIENT_FAILURE);
  pool.Release(lost, 1, {.is_lost = true});
  EXPECT_EQ(pool.Acquire(1, {}), live);
}

}  // namespace
}  // namespace swiglu::client
