// SPDX-License-Identifier: Apache-2.0
//
// What is known of a connection by its calls: the signs of life that tell it from a flood.
#include "server/transport/message_watch.h"

#include <cstdint>

#include "gtest/gtest.h"
#include "tests/rpc/calls.h"
#include "tests/rpc/server_fixture.h"

namespace swiglu::server {
namespace {

class MessageWatchTest : public testing::Test {
 protected:
  // The only connection's.
  ConnectionTraffic Traffic() {
    const auto connections = server_.connections.TakenFromAll();
    EXPECT_EQ(connections.size(), 1u);
    return connections.empty() ? ConnectionTraffic()
                               : server_.watch().Traffic(connections.front().peer);
  }

  HoldingExecutor executor_;
  TestServer server_{&executor_};
};

TEST_F(MessageWatchTest, KnowsNothingOfAPeerWithoutCalls) {
  const ConnectionTraffic traffic = server_.watch().Traffic("ipv4:127.0.0.1:1");
  EXPECT_EQ(traffic.num_steps, 0u);
  EXPECT_FALSE(traffic.is_awaiting);
}

TEST_F(MessageWatchTest, CountsCallsThatAreRefusedUnread) {
  CallRaw(server_, "/other.Service/Nope", "body");
  EXPECT_EQ(Traffic().num_steps, 1u);
  CallRaw(server_, "/other.Service/Nope", "body");
  EXPECT_EQ(Traffic().num_steps, 2u);
  EXPECT_FALSE(Traffic().is_awaiting);
}

TEST_F(MessageWatchTest, CountsCallsThatAwaitNothing) {
  RawCall call(server_, kInferMethod, {{"swiglu-request-bytes", "1000000000000"}});
  EXPECT_EQ(call.Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Traffic().num_steps, 1u);
}

TEST_F(MessageWatchTest, CountsMessagesThatComeAndThatDoNot) {
  RawCall stream(server_, "/inference.GRPCInferenceService/ModelStreamInfer");
  ASSERT_TRUE(Eventually([&] { return Traffic().is_awaiting; }));
  EXPECT_EQ(Traffic().num_steps, 1u);
  ASSERT_TRUE(stream.Write("no message"));
  ASSERT_TRUE(Eventually([&] { return Traffic().num_steps == 2u; }));
  EXPECT_TRUE(Eventually([&] { return Traffic().is_awaiting; }));  // the next one
  stream.Cancel();
  EXPECT_TRUE(Eventually([&] { return !Traffic().is_awaiting; }));
  EXPECT_EQ(Traffic().num_steps, 3u);
}

// A stream with many unanswered messages is not read, and its client may send on.
TEST_F(MessageWatchTest, AStreamThatIsNotReadStillAwaits) {
  RawCall stream(server_, "/inference.GRPCInferenceService/ModelStreamInfer");
  const std::string message = GoodRequest(kForwardFp16, {4}).SerializeAsString();
  uint64_t num_sent = 0;
  // More than the server takes without an answer: it has read those when their steps have stopped.
  for (; num_sent < 150; ++num_sent) ASSERT_TRUE(stream.Write(message));
  ASSERT_TRUE(Eventually([&] { return Traffic().num_steps >= 128u; }));
  EXPECT_TRUE(Traffic().is_awaiting);
  executor_.Release();
  stream.Cancel();
  EXPECT_TRUE(Eventually([&] { return !Traffic().is_awaiting; }));
}

}  // namespace
}  // namespace swiglu::server
