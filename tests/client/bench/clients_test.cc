// SPDX-License-Identifier: Apache-2.0
//
// The clients of a load against a server that looks at what they send and answers as it likes.
#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/bench/load.h"
#include "gtest/gtest.h"
#include "tests/client/fake_server.h"

namespace swiglu::bench {
namespace {

using client::FakeCall;
using client::FakeReply;
using client::FakeServer;

using Connector = absl::StatusOr<std::unique_ptr<Load>>(const LoadOptions&,
                                                        const std::vector<RequestData>*);

// 64 elements of forward in FP16: 256 bytes of input.
LoadOptions Options(const FakeServer& server) {
  LoadOptions options;
  options.server = server.address();
  options.model = FindModel("swiglu_forward_fp16");
  options.request_bytes = {{256, 1}};
  options.num_connections = 2;
  options.num_in_flight = 4;
  options.num_threads = 2;
  options.coalesce_bytes = 0;
  return options;
}

// The library's load by the futures of two threads.
absl::StatusOr<std::unique_ptr<Load>> CreateFuturesLoad(const LoadOptions& options,
                                                        const std::vector<RequestData>* data) {
  LoadOptions with_callers = options;
  with_callers.num_callers = 2;
  return CreateLibraryLoad(with_callers, data);
}

Tally RunLoad(Connector* connect, const LoadOptions& options, int64_t num_requests) {
  const std::vector<RequestData> data = MakeRequestData(options);
  const auto load = connect(options, &data);
  EXPECT_TRUE(load.ok()) << load.status();
  Pace pace({.warm_up = std::chrono::seconds(0), .num_requests = num_requests}, Clock::now());
  (*load)->Start(&pace);
  return (*load)->Finish();
}

class ClientsTest : public ::testing::TestWithParam<Connector*> {};

TEST_P(ClientsTest, SendsEveryRequestOverEveryConnection) {
  std::atomic<int> num_calls = 0;
  std::set<std::string> peers;
  FakeServer server([&](const FakeCall& call) {
    ++num_calls;
    peers.insert(call.peer);
    EXPECT_EQ(call.method, "ModelInfer");
    return client::EchoInfer(call);
  });
  const Tally tally = RunLoad(GetParam(), Options(server), 1000);
  EXPECT_EQ(num_calls, 1000);
  EXPECT_EQ(peers.size(), 2u);
  EXPECT_EQ(tally.Total().latency.count(), 1000);
  EXPECT_EQ(tally.Total().bytes_in, 1000 * 256);
  EXPECT_EQ(tally.Total().bytes_out, 1000 * 128);
  EXPECT_EQ(tally.NumFailed(), 0);
}

TEST_P(ClientsTest, GivesARequestItsTime) {
  absl::Duration told;
  FakeServer server([&](const FakeCall& call) {
    told = call.deadline - absl::Now();
    return client::EchoInfer(call);
  });
  LoadOptions options = Options(server);
  RunLoad(GetParam(), options, 1);
  EXPECT_LE(told, absl::Seconds(30.5));
  EXPECT_GE(told, absl::Seconds(10));
  options.timeout = absl::Seconds(300);
  RunLoad(GetParam(), options, 1);
  EXPECT_LE(told, absl::Seconds(303));
  EXPECT_GE(told, absl::Seconds(280));
}

// gRPC rounds the time up to a tenth of a second.
TEST_P(ClientsTest, GivesALargeRequestMoreTime) {
  absl::Time deadline;
  FakeServer server([&](const FakeCall& call) {
    deadline = call.deadline;
    return client::EchoInfer(call);
  });
  LoadOptions options = Options(server);
  options.request_bytes = {{40'000'000, 1}};
  const absl::Time start = absl::Now();
  const Tally tally = RunLoad(GetParam(), options, 1);
  EXPECT_EQ(tally.NumFailed(), 0) << tally.example();
  EXPECT_GE(deadline - start, absl::Seconds(30.4));
}

TEST_P(ClientsTest, CountsAnAnswerOfTheWrongSizeAsInternal) {
  FakeServer server([&](const FakeCall&) {
    FakeReply reply;
    reply.message = std::string(127, 'x');
    return reply;
  });
  const Tally tally = RunLoad(GetParam(), Options(server), 3);
  EXPECT_EQ(tally.Total().latency.count(), 0);
  EXPECT_EQ(tally.num_errors().at(absl::StatusCode::kInternal), 3);
}

TEST_P(ClientsTest, CountsRefusalsByTheirCode) {
  FakeServer server([&](const FakeCall&) {
    FakeReply reply;
    reply.status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "queue is full");
    return reply;
  });
  const Tally tally = RunLoad(GetParam(), Options(server), 3);
  EXPECT_EQ(tally.num_errors().at(absl::StatusCode::kUnavailable), 3);
  EXPECT_EQ(tally.example().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(absl::StartsWith(tally.example().message(), "queue is full")) << tally.example();
}

INSTANTIATE_TEST_SUITE_P(Raw, ClientsTest, ::testing::Values(&ConnectRawLoad));
INSTANTIATE_TEST_SUITE_P(Library, ClientsTest, ::testing::Values(&CreateLibraryLoad));
INSTANTIATE_TEST_SUITE_P(Futures, ClientsTest, ::testing::Values(&CreateFuturesLoad));

TEST(LibraryClientTest, SendsToEveryServer) {
  std::atomic<int> num_calls[2] = {0, 0};
  const auto answer = [&num_calls](int k) {
    return [&num_calls, k](const FakeCall& call) {
      ++num_calls[k];
      return client::EchoInfer(call);
    };
  };
  FakeServer first(answer(0)), second(answer(1));
  LoadOptions options = Options(first);
  options.server = absl::StrCat(first.address(), ",", second.address());
  EXPECT_EQ(RunLoad(&CreateLibraryLoad, options, 200).Total().latency.count(), 200);
  EXPECT_GT(num_calls[0], 0);
  EXPECT_GT(num_calls[1], 0);
}

TEST(LibraryClientTest, JoinsCallsUpToTheGivenSize) {
  std::atomic<int> num_calls = 0;
  FakeServer server([&](const FakeCall& call) {
    ++num_calls;
    return client::EchoInfer(call);
  });
  LoadOptions options = Options(server);
  options.num_in_flight = 16;
  options.streams = false;
  for (const auto& [coalesce_bytes, joins] : {std::pair{255, false}, std::pair{256, true}}) {
    num_calls = 0;
    options.coalesce_bytes = coalesce_bytes;
    const Tally tally = RunLoad(&CreateLibraryLoad, options, 1000);
    EXPECT_EQ(tally.Total().latency.count(), 1000);
    EXPECT_EQ(num_calls < 1000, joins) << num_calls;
    EXPECT_EQ(tally.messages().num_calls, 1000);
    EXPECT_NEAR(tally.messages().num_messages, num_calls, 1e-6);
    EXPECT_EQ(tally.messages().num_retries, 0);
  }
}

// The server refuses every second message.
TEST(LibraryClientTest, SendsAMessageAsOftenAsItMay) {
  std::atomic<int> num_calls = 0;
  FakeServer server([&](const FakeCall& call) {
    if (++num_calls % 2 == 0) return client::EchoInfer(call);
    FakeReply reply;
    reply.status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "queue is full");
    reply.trailers = {{"grpc-retry-pushback-ms", "0"}};
    return reply;
  });
  LoadOptions options = Options(server);
  options.num_in_flight = 1;
  options.streams = false;
  EXPECT_EQ(RunLoad(&CreateLibraryLoad, options, 8).NumFailed(), 4);
  options.max_attempts = 2;
  const Tally tally = RunLoad(&CreateLibraryLoad, options, 8);
  EXPECT_EQ(tally.NumFailed(), 0);
  EXPECT_EQ(num_calls, 24);
  EXPECT_EQ(tally.messages().num_messages, 8);
  EXPECT_EQ(tally.messages().num_retries, 8);
}

// The server does not answer the first message. Without a second one, the call would be late.
TEST(LibraryClientTest, SendsACallThatHangsASecondTime) {
  std::atomic<int> num_calls = 0;
  FakeServer server([&](const FakeCall& call) {
    if (++num_calls > 1) return client::EchoInfer(call);
    FakeReply reply;
    reply.never = true;
    return reply;
  });
  LoadOptions options = Options(server);
  options.num_in_flight = 1;
  options.timeout = absl::Seconds(10);
  options.hedge_delay = absl::Milliseconds(1);
  const Tally tally = RunLoad(&CreateLibraryLoad, options, 1);
  EXPECT_EQ(tally.NumFailed(), 0) << tally.example();
  EXPECT_EQ(num_calls, 2);
  EXPECT_EQ(tally.messages().num_retries, 1);
}

TEST(LibraryClientTest, StreamsCanBeTurnedOff) {
  for (const bool streams : {true, false}) {
    std::atomic<int> num_streamed = 0;
    client::FakeServerOptions server_options;
    server_options.takes_streams = true;
    FakeServer server(
        [&](const FakeCall& call) {
          if (call.method == "ModelStreamInfer") ++num_streamed;
          return client::EchoInfer(call);
        },
        "127.0.0.1:0", server_options);
    LoadOptions options = Options(server);
    options.num_in_flight = 1;
    options.streams = streams;
    const Tally tally = RunLoad(&CreateLibraryLoad, options, 20);
    EXPECT_EQ(tally.NumFailed(), 0) << tally.example();
    EXPECT_EQ(num_streamed > 0, streams);
    EXPECT_EQ(tally.messages().num_retries, 0);
  }
}

// 80 MB are three chunks of at most 32 MiB. The server is not asked for its times.
TEST(LibraryClientTest, ChunksAreNoRetries) {
  std::atomic<int> num_calls = 0;
  FakeServer server([&](const FakeCall& call) {
    ++num_calls;
    EXPECT_EQ(call.metadata.count("swiglu-want-timing"), 0u);
    if (call.message.size() > size_t{40} << 20) {
      FakeReply reply;
      reply.status = grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "too large");
      return reply;
    }
    return client::EchoInfer(call);
  });
  LoadOptions options = Options(server);
  options.request_bytes = {{80'000'000, 1}};
  options.num_in_flight = 1;
  const Tally tally = RunLoad(&CreateLibraryLoad, options, 1);
  EXPECT_EQ(tally.NumFailed(), 0) << tally.example();
  EXPECT_EQ(tally.messages().num_calls, 1);
  EXPECT_EQ(tally.messages().num_messages, num_calls - 1);
  // At most the message that the server found too large.
  EXPECT_LE(tally.messages().num_retries, 1);
}

TEST(RawLoadTest, CountsAnAnswerThatIsFarTooLargeAsInternal) {
  FakeServer server([&](const FakeCall&) {
    FakeReply reply;
    reply.message = std::string(128 + (64 << 10) + 1, 'x');
    return reply;
  });
  const Tally tally = RunLoad(&ConnectRawLoad, Options(server), 1);
  EXPECT_EQ(tally.example(),
            absl::InternalError("the answer has 65665 bytes; its tensors need 128"));
}

}  // namespace
}  // namespace swiglu::bench
