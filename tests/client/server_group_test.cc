// SPDX-License-Identifier: Apache-2.0
//
// The library with a name that several servers have.
#include <atomic>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "client/server_connection.h"
#include "gtest/gtest.h"
#include "swiglu/client.h"
#include "tests/client/client_fixture.h"
#include "tests/client/fake_server.h"
#include "tests/client/name_server.h"

namespace swiglu::client {
namespace {

class ServerGroupTest : public ClientTest {
 protected:
  absl::Status Forward(const Client& client) {
    return client.Forward(View(e_, shape_), View(g_, shape_)).status();
  }
};

TEST_F(ServerGroupTest, ANameIsResolved) {
  FakeServer server([](const FakeCall& call) { return EchoInfer(call); });
  const absl::string_view port = absl::StripPrefix(server.address(), "127.0.0.1:");
  EXPECT_EQ(Forward(*Connect(absl::StrCat("dns:///localhost:", port))), absl::OkStatus());
}

TEST_F(ServerGroupTest, CallsGoInTurnToAllServersOfAName) {
  std::atomic<int> num_first = 0, num_second = 0;
  const auto counts_in = [](std::atomic<int>* count) {
    return [count](const FakeCall& call) {
      ++*count;
      return EchoInfer(call);
    };
  };
  // A stream would stay with one of them.
  FakeServerOptions takes_streams;
  takes_streams.takes_streams = true;
  FakeServer first(counts_in(&num_first), "127.0.0.1:0", takes_streams);
  const absl::string_view port = absl::StripPrefix(first.address(), "127.0.0.1:");
  FakeServer second(counts_in(&num_second), absl::StrCat("127.0.0.2:", port), takes_streams);
  NameServer names({"127.0.0.1", "127.0.0.2"});
  Options options;
  options.num_connections = 1;
  const Client client(std::make_shared<ServerConnection>(
      std::vector<std::string>{absl::StrCat("dns://", names.address(), "/two.test:", port)},
      options));
  const CallOptions in_time{.timeout = absl::Seconds(60)};
  const auto forward = [&] {
    return client.Forward(View(e_, shape_), View(g_, shape_), in_time).status();
  };
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  while ((num_first == 0 || num_second == 0) && absl::Now() < deadline) {
    EXPECT_EQ(forward(), absl::OkStatus());
  }
  num_first = num_second = 0;
  for (int i = 0; i < 10; ++i) EXPECT_EQ(forward(), absl::OkStatus());
  EXPECT_EQ(num_first, 5);
  EXPECT_EQ(num_second, 5);
}

// One of a group would speak for all.
TEST_F(ServerGroupTest, TheHealthOfAGroupIsNotWatched) {
  std::atomic<int> num_calls = 0;
  FakeServer grouped(
      [&](const FakeCall& call) {
        ++num_calls;
        return EchoInfer(call);
      },
      "127.0.0.1:0", {.health = grpc::health::v1::HealthCheckResponse::NOT_SERVING});
  FakeServer alone([](const FakeCall& call) { return EchoInfer(call); }, "127.0.0.1:0",
                   {.health = grpc::health::v1::HealthCheckResponse::SERVING});
  const absl::string_view port = absl::StripPrefix(grouped.address(), "127.0.0.1:");
  const auto client = Connect(absl::StrCat("dns:///localhost:", port, ",", alone.address()));
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  while ((num_calls == 0 || alone.num_watches() == 0) && absl::Now() < deadline) {
    EXPECT_EQ(Forward(*client), absl::OkStatus());
  }
  num_calls = 0;
  while (num_calls < 100 && absl::Now() < deadline) {
    EXPECT_EQ(Forward(*client), absl::OkStatus());
  }
  EXPECT_EQ(grouped.num_watches(), 0);
}

TEST_F(ServerGroupTest, AGroupHasNoRegions) {
  const auto client = Connect("dns:///localhost:1");
  EXPECT_EQ(client->RegisterSystemRegion("r", "/r", 1),
            absl::FailedPreconditionError(
                "this client's address may stand for several servers; a client that uses regions "
                "of shared memory has one, HOST:PORT or unix:/path"));
}

}  // namespace
}  // namespace swiglu::client
