// SPDX-License-Identifier: Apache-2.0
//
// The library with several servers: who gets a call, and what happens when one refuses or is gone.
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "swiglu/client.h"
#include "tests/client/bytes.h"
#include "tests/client/client_fixture.h"
#include "tests/client/fake_server.h"

namespace swiglu::client {
namespace {

// Two servers that count their calls, and answer as the test says.
class TwoServersTest : public ClientTest {
 protected:
  struct Peer {
    std::atomic<int> num_calls = 0;
    std::atomic<bool> refuses = false;
    std::atomic<int> refuses_next = 0;  // so many calls
    std::atomic<bool> hangs = false;
    std::string pushback_ms;    // of refusals, if not empty; set before the first call
    FakeServerOptions options;  // for Start
    std::unique_ptr<FakeServer> server;
  };

  void SetUp() override {
    for (Peer& peer : peers_) Start(peer);
  }
  void Start(Peer& peer, const std::string& address = "127.0.0.1:0") {
    peer.server = std::make_unique<FakeServer>(
        [&peer](const FakeCall& call) {
          ++peer.num_calls;
          if (peer.hangs) return NoReply();
          const bool refuses_this = peer.refuses_next > 0 && peer.refuses_next-- > 0;
          if (!peer.refuses && !refuses_this) return EchoInfer(call);
          FakeReply reply = Refusal(grpc::StatusCode::UNAVAILABLE, "server is draining");
          if (!peer.pushback_ms.empty()) {
            reply.trailers["grpc-retry-pushback-ms"] = peer.pushback_ms;
          }
          return reply;
        },
        address, peer.options);
  }
  std::string Both() const {
    return absl::StrCat(peers_[0].server->address(), ",", peers_[1].server->address());
  }
  // A client that has a connection to each, so that both are equal to it. Forgets the calls so far.
  // Its calls are unary, because a call that fails on a stream takes two turns.
  std::unique_ptr<Client> ConnectToBoth(Options options = {}) {
    options.num_connections = 1;
    options.streams = false;
    auto client = Connect(Both(), options);
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    while ((peers_[0].num_calls == 0 || peers_[1].num_calls == 0) && absl::Now() < deadline) {
      EXPECT_EQ(Forward(*client), absl::OkStatus());
    }
    for (Peer& peer : peers_) peer.num_calls = 0;
    return client;
  }
  // Calls until a row of calls has not gone to the peer.
  void ExpectIsLeft(Client& client, const Peer& peer) {
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    int num_elsewhere = 0;
    while (num_elsewhere < 20 && absl::Now() < deadline) {
      const int before = peer.num_calls;
      EXPECT_EQ(Forward(client), absl::OkStatus());
      num_elsewhere = peer.num_calls == before ? num_elsewhere + 1 : 0;
    }
    EXPECT_EQ(num_elsewhere, 20);
  }
  // Calls until one goes to the peer.
  void ExpectIsFound(Client& client, const Peer& peer) {
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    const int before = peer.num_calls;
    while (peer.num_calls == before && absl::Now() < deadline) {
      EXPECT_EQ(Forward(client), absl::OkStatus());
    }
    EXPECT_GT(peer.num_calls, before);
  }
  absl::Status Forward(Client& client) {
    return client.Forward(View(e_, shape_), View(g_, shape_)).status();
  }

  Peer peers_[2];
};

TEST_F(TwoServersTest, TakeTurns) {
  const auto client = ConnectToBoth();
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Forward(*client), absl::OkStatus());
  EXPECT_EQ(peers_[0].num_calls, 5);
  EXPECT_EQ(peers_[1].num_calls, 5);
}

TEST_F(TwoServersTest, ACallThatOneRefusesGoesToTheOtherAtOnce) {
  peers_[0].refuses = true;
  peers_[0].pushback_ms = "3600000";
  // No budget: a call that has another server to go to needs none.
  const auto client = Connect(Both(), {.timeout = absl::Seconds(600), .retry_budget = 0});
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Forward(*client), absl::OkStatus());
  EXPECT_EQ(peers_[0].num_calls, 1) << "it wants to be left alone for an hour";
  EXPECT_EQ(peers_[1].num_calls, 10);
}

TEST_F(TwoServersTest, AnErrorNamesItsServer) {
  for (Peer& peer : peers_) peer.pushback_ms = "-1";
  const auto client = ConnectToBoth();
  for (Peer& peer : peers_) peer.refuses = true;
  for (int i = 0; i < 2; ++i) {
    const int before = peers_[0].num_calls;
    const absl::Status status = Forward(*client);
    const Peer& called = peers_[peers_[0].num_calls > before ? 0 : 1];
    EXPECT_EQ(status, absl::UnavailableError(absl::StrCat("server is draining (from ",
                                                          called.server->address(), ")")));
  }
  EXPECT_EQ(peers_[0].num_calls, 1);
  EXPECT_EQ(peers_[1].num_calls, 1);
}

TEST_F(TwoServersTest, BothRefuse) {
  const auto client = ConnectToBoth({.max_attempts = 3});
  for (Peer& peer : peers_) peer.refuses = true;
  const absl::Status status = Forward(*client);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(absl::EndsWith(status.message(), "(tried 3 times)")) << status;
  EXPECT_EQ(peers_[0].num_calls + peers_[1].num_calls, 3);
  EXPECT_GE(peers_[0].num_calls, 1);
  EXPECT_GE(peers_[1].num_calls, 1);
}

TEST_F(TwoServersTest, NoCallFailsWhenOneIsLostAndItIsFoundAgain) {
  const std::string address = peers_[0].server->address();
  const auto client = ConnectToBoth({.retry_budget = 0});
  peers_[0].server.reset();
  for (int i = 0; i < 100; ++i) EXPECT_EQ(Forward(*client), absl::OkStatus());
  Start(peers_[0], address);
  ExpectIsFound(*client, peers_[0]);
}

// The one that is left wants to be left alone, and the other is gone. Calls go to the one that is
// left, and do not all fail at the one that is gone.
TEST_F(TwoServersTest, AServerThatPushesBackIsBetterThanOneThatIsGone) {
  peers_[1].pushback_ms = "3600000";
  const auto client = ConnectToBoth({.timeout = absl::Seconds(600), .max_attempts = 1});
  peers_[0].server.reset();
  peers_[1].refuses_next = 1;
  const absl::Time deadline = absl::Now() + absl::Seconds(20);  // well before it is open again
  while (peers_[1].refuses_next > 0 && absl::Now() < deadline) Forward(*client).IgnoreError();
  absl::Status status = absl::UnavailableError("");
  while (!status.ok() && absl::Now() < deadline) status = Forward(*client);
  EXPECT_EQ(status, absl::OkStatus());
}

// A refusal without a pushback does not bring the same server the message again at once.
TEST_F(TwoServersTest, AFailoverNeverGoesBackToTheServerThatRefused) {
  const auto client = ConnectToBoth({.max_attempts = 2, .retry_budget = 0});
  for (Peer& peer : peers_) peer.refuses = true;
  for (int i = 1; i <= 10; ++i) {
    EXPECT_FALSE(Forward(*client).ok());
    EXPECT_EQ(peers_[0].num_calls, i);
    EXPECT_EQ(peers_[1].num_calls, i);
  }
}

// Without the avoidance, every second call would go to the one that hangs.
TEST_F(TwoServersTest, AServerThatHangsIsAvoided) {
  const auto client = ConnectToBoth({.timeout = absl::Seconds(600),
                                     .retry_budget = 0,
                                     .coalesce_bytes = 0,
                                     .hedge_delay = absl::Milliseconds(1)});
  peers_[0].hangs = true;
  // It is avoided at first if an answer before took longer than the delay.
  ExpectIsFound(*client, peers_[0]);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(Forward(*client), absl::OkStatus());
  EXPECT_LT(peers_[0].num_calls, 40);
}

TEST_F(TwoServersTest, ASplitOperationUsesBoth) {
  const std::string bytes = Pattern(100'000, 3);
  const auto client = Connect(Both(), {.num_connections = 1, .max_message_bytes = 4096});
  const auto h = client->Forward(View(bytes, {50'000}), View(bytes, {50'000}));
  ASSERT_TRUE(h.ok()) << h.status();
  EXPECT_EQ(AsText(h->bytes()), bytes);
  EXPECT_GT(peers_[0].num_calls, 0);
  EXPECT_GT(peers_[1].num_calls, 0);
}

// The servers tell how they are.
class TwoHealthyServersTest : public TwoServersTest {
 protected:
  static constexpr FakeHealth kServing = grpc::health::v1::HealthCheckResponse::SERVING;
  static constexpr FakeHealth kNotServing = grpc::health::v1::HealthCheckResponse::NOT_SERVING;

  void SetUp() override {
    for (Peer& peer : peers_) peer.options.health = kServing;
    TwoServersTest::SetUp();
  }
};

TEST_F(TwoHealthyServersTest, AServerThatDoesNotServeGetsNoCallsUntilItServesAgain) {
  const auto client = ConnectToBoth();
  peers_[0].server->SetHealth(kNotServing);
  ExpectIsLeft(*client, peers_[0]);
  for (Peer& peer : peers_) peer.num_calls = 0;
  for (int i = 0; i < 50; ++i) EXPECT_EQ(Forward(*client), absl::OkStatus());
  EXPECT_EQ(peers_[0].num_calls, 0);
  EXPECT_EQ(peers_[1].num_calls, 50);
  peers_[0].server->SetHealth(kServing);
  ExpectIsFound(*client, peers_[0]);
}

TEST_F(TwoHealthyServersTest, CallsGoToAServerThatDoesNotServeIfTheOtherIsGone) {
  const auto client = ConnectToBoth();
  peers_[0].server->SetHealth(kNotServing);
  ExpectIsLeft(*client, peers_[0]);
  peers_[1].server.reset();
  EXPECT_EQ(Forward(*client), absl::OkStatus());
}

// All threads of the client wait for answers.
TEST_F(TwoHealthyServersTest, AServerIsLeftWhileOtherCallsHang) {
  constexpr int kHanging = 8;
  const auto client = ConnectToBoth({.timeout = absl::Seconds(600), .coalesce_bytes = 0});
  for (Peer& peer : peers_) peer.hangs = true;
  std::vector<Future<absl::StatusOr<Tensor>>> hanging;
  for (int i = 0; i < kHanging; ++i) {
    hanging.push_back(client->ForwardAsync(View(e_, shape_), View(g_, shape_)));
  }
  while (peers_[0].num_calls + peers_[1].num_calls < kHanging) std::this_thread::yield();
  for (Peer& peer : peers_) peer.hangs = false;
  peers_[0].server->SetHealth(kNotServing);
  ExpectIsLeft(*client, peers_[0]);
  for (auto& future : hanging) future.Cancel();
}

TEST_F(TwoHealthyServersTest, ALostServerIsOfUnknownHealth) {
  const std::string address = peers_[0].server->address();
  const auto client = ConnectToBoth();
  peers_[0].server->SetHealth(kNotServing);
  ExpectIsLeft(*client, peers_[0]);
  peers_[0].server.reset();
  peers_[0].options.health = absl::nullopt;
  Start(peers_[0], address);
  ExpectIsFound(*client, peers_[0]);
}

// No call is under way when the server comes back.
TEST_F(TwoHealthyServersTest, AServerThatComesBackIsWatchedAgain) {
  const std::string address = peers_[0].server->address();
  const auto client = ConnectToBoth();
  peers_[0].server->num_watches().wait(0);
  peers_[0].server.reset();
  Start(peers_[0], address);
  peers_[0].server->num_watches().wait(0);
  peers_[0].server->SetHealth(kNotServing);
  ExpectIsLeft(*client, peers_[0]);
  EXPECT_EQ(peers_[0].server->num_watches(), 1);
}

TEST_F(TwoServersTest, RegionsNeedOneServer) {
  const auto client = Connect(Both());
  const absl::Status refusal = absl::FailedPreconditionError(
      "this client has 2 servers; a client that uses regions of shared memory has one");
  EXPECT_EQ(client->RegisterSystemRegion("r", "/r", 1), refusal);
  EXPECT_EQ(client->RegisterCudaRegion("r", std::string(64, 'x'), 0, 1), refusal);
  EXPECT_EQ(client->UnregisterAllRegions(RegionKind::kSystem), refusal);
  EXPECT_EQ(client->ListRegions(RegionKind::kCuda).status(), refusal);
  const RegionPart part{"r", 24, 0, 24};
  const InputTensor e{Dtype::kFp16, shape_, part};
  EXPECT_EQ(client->ForwardInto(e, View(g_, shape_), part), refusal);
  EXPECT_EQ(peers_[0].num_calls + peers_[1].num_calls, 0);
}

TEST(ServersTest, BadAddressesAreRefused) {
  EXPECT_EQ(Client::Create("a:1,b").status(),
            absl::InvalidArgumentError("bad server address 'b': the port is missing; it takes "
                                       "HOST:PORT, dns:///NAME:PORT or unix:/path"));
  EXPECT_EQ(Client::Create("a:1,").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      Client::Create("a:1,unix:/s,a:1").status(),
      absl::InvalidArgumentError("bad server addresses 'a:1,unix:/s,a:1': a:1 is there twice"));
}

}  // namespace
}  // namespace swiglu::client
