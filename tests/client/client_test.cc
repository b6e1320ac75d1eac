// SPDX-License-Identifier: Apache-2.0
//
// The library against servers that answer, refuse, lie, stay silent or are not there.
#include "swiglu/client.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/bytes.h"
#include "tests/client/fake_server.h"
#include "tests/client/silent_peer.h"

namespace swiglu::client {
namespace {

using ::testing::ElementsAre;
using ::testing::StartsWith;

std::unique_ptr<Client> Connect(const std::string& address, const Options& options = {}) {
  auto client = Client::Create(address, options);
  EXPECT_TRUE(client.ok()) << client.status();
  return *std::move(client);
}

FakeReply Refusal(grpc::StatusCode code, const std::string& message) {
  FakeReply reply;
  reply.status = grpc::Status(code, message);
  return reply;
}

class ClientTest : public ::testing::Test {
 protected:
  TensorView View(const std::string& bytes, Shape shape) {
    return {Dtype::kFp16, std::move(shape), AsBytes(bytes)};
  }

  const std::string dw_ = Pattern(24, 1), e_ = Pattern(24, 2), g_ = Pattern(24, 3);
  const Shape shape_ = {3, 4};
};

TEST_F(ClientTest, ForwardGivesTheServersTensor) {
  FakeServer server([](const FakeCall& call) { return EchoInfer(call); });
  const auto client = Connect(server.address());
  const auto h = client->Forward(View(e_, shape_), View(g_, shape_));
  ASSERT_TRUE(h.ok()) << h.status();
  EXPECT_EQ(h->dtype(), Dtype::kFp16);
  EXPECT_EQ(h->shape(), shape_);
  EXPECT_EQ(AsText(h->bytes()), e_);
}

TEST_F(ClientTest, BackwardGivesEachTensorItsPlace) {
  FakeServer server([](const FakeCall& call) { return EchoInfer(call); });
  const auto client = Connect(server.address());
  const auto result = client->Backward(View(dw_, shape_), View(e_, shape_), View(g_, shape_));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(AsText(result->h.bytes()), dw_);
  EXPECT_EQ(AsText(result->df.bytes()), e_);
  EXPECT_EQ(AsText(result->de.bytes()), g_);
  EXPECT_EQ(result->de.shape(), shape_);
}

TEST_F(ClientTest, NamesTheModelByOperationAndDtype) {
  std::vector<std::string> models;
  FakeServer server([&](const FakeCall& call) {
    inference::ModelInferRequest request;
    request.ParseFromString(call.message);
    models.push_back(request.model_name());
    return EchoInfer(call);
  });
  const auto client = Connect(server.address());
  for (const Dtype dtype : {Dtype::kFp16, Dtype::kBf16, Dtype::kFp32}) {
    const TensorView tensor{dtype, {24 / ElementBytes(dtype)}, AsBytes(e_)};
    EXPECT_TRUE(client->Forward(tensor, tensor).ok());
    EXPECT_TRUE(client->Backward(tensor, tensor, tensor).ok());
  }
  EXPECT_THAT(models,
              ElementsAre("swiglu_forward_fp16", "swiglu_backward_fp16", "swiglu_forward_bf16",
                          "swiglu_backward_bf16", "swiglu_forward_fp32", "swiglu_backward_fp32"));
}

TEST_F(ClientTest, AnnouncesTheSizeOfTheRequest) {
  std::string announced;
  size_t size = 0;
  FakeServer server([&](const FakeCall& call) {
    announced = call.metadata.find("swiglu-request-bytes")->second;
    size = call.message.size();
    return EchoInfer(call);
  });
  EXPECT_TRUE(Connect(server.address())->Forward(View(e_, shape_), View(g_, shape_)).ok());
  EXPECT_EQ(announced, std::to_string(size));
}

TEST_F(ClientTest, TakesTensorsWithoutElements) {
  FakeServer server([](const FakeCall& call) { return EchoInfer(call); });
  const auto h = Connect(server.address())->Forward(View("", {2, 0}), View("", {2, 0}));
  ASSERT_TRUE(h.ok()) << h.status();
  EXPECT_EQ(h->shape(), (Shape{2, 0}));
  EXPECT_TRUE(h->bytes().empty());
}

TEST_F(ClientTest, WritesOverItsInputsInPlace) {
  FakeServer server([](const FakeCall& call) {
    inference::ModelInferRequest request;
    request.ParseFromString(call.message);
    auto response = EchoInfer(request);
    std::rotate(response.mutable_raw_output_contents()->begin(),
                response.mutable_raw_output_contents()->begin() + 1,
                response.mutable_raw_output_contents()->end());
    return Answer(response);
  });
  std::string dw = dw_, e = e_, g = g_;
  const absl::Status status =
      Connect(server.address())
          ->BackwardInto(View(dw, shape_), View(e, shape_), View(g, shape_),
                         {AsWritableBytes(dw), AsWritableBytes(e), AsWritableBytes(g)});
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(dw, e_);
  EXPECT_EQ(e, g_);
  EXPECT_EQ(g, dw_);
}

TEST_F(ClientTest, RefusesBadInputsBeforeSending) {
  std::atomic<int> num_calls = 0;
  FakeServer server([&](const FakeCall& call) {
    ++num_calls;
    return EchoInfer(call);
  });
  const auto client = Connect(server.address());
  EXPECT_EQ(client->Forward(View(e_, shape_), View(g_, {4, 3})).status().message(),
            "shape of 'g' is [4,3]; 'e' has [3,4]");
  std::string h(23, '?'), good(24, '?');
  EXPECT_EQ(client->ForwardInto(View(e_, shape_), View(g_, shape_), AsWritableBytes(h)).message(),
            "output 'h' has 23 bytes; the inputs have 24");
  for (const int bad : {0, 1, 2}) {
    const auto output = [&](int k) { return AsWritableBytes(k == bad ? h : good); };
    const char* const names[] = {"h", "df", "de"};
    EXPECT_EQ(client
                  ->BackwardInto(View(dw_, shape_), View(e_, shape_), View(g_, shape_),
                                 {output(0), output(1), output(2)})
                  .message(),
              absl::StrCat("output '", names[bad], "' has 23 bytes; the inputs have 24"));
  }
  EXPECT_EQ(num_calls, 0);
}

TEST_F(ClientTest, SplitsWhatDoesNotFitIntoAMessage) {
  absl::Mutex mu;
  std::vector<size_t> sizes;
  std::vector<int> ranks;
  FakeServer server([&](const FakeCall& call) {
    inference::ModelInferRequest request;
    request.ParseFromString(call.message);
    absl::MutexLock lock(&mu);
    sizes.push_back(call.message.size());
    ranks.push_back(request.inputs(0).shape_size());
    return EchoInfer(call);
  });
  const Shape shape = {3, 5, 667};
  const std::string dw = Pattern(20010, 4), e = Pattern(20010, 5), g = Pattern(20010, 6);
  const auto client = Connect(server.address(), {.num_connections = 3, .max_message_bytes = 4096});
  std::vector<int64_t> done;
  CallOptions options;
  options.on_chunk = [&](int64_t num_done, int64_t num_chunks) {
    absl::MutexLock lock(&mu);
    EXPECT_EQ(num_chunks, 17);
    done.push_back(num_done);
  };
  const auto result = client->Backward(View(dw, shape), View(e, shape), View(g, shape), options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(AsText(result->h.bytes()), dw);
  EXPECT_EQ(AsText(result->df.bytes()), e);
  EXPECT_EQ(AsText(result->de.bytes()), g);
  EXPECT_EQ(result->df.shape(), shape);
  EXPECT_EQ(sizes.size(), 17u);
  EXPECT_LE(*std::max_element(sizes.begin(), sizes.end()), 4096u);
  EXPECT_THAT(ranks, ::testing::Each(1));
  std::sort(done.begin(), done.end());
  EXPECT_EQ(done.size(), 17u);
  EXPECT_EQ(done.back(), 17);
}

TEST_F(ClientTest, StopsAtTheFirstChunkThatFails) {
  std::atomic<int> num_calls = 0;
  FakeServer server([&](const FakeCall& call) {
    if (++num_calls <= 5) return EchoInfer(call);
    return Refusal(grpc::StatusCode::UNAVAILABLE, "queue is full: 4096 requests");
  });
  const std::string bytes = Pattern(1 << 20, 7);
  const auto client = Connect(server.address(), {.num_connections = 2, .max_message_bytes = 4096});
  const auto h = client->Forward(View(bytes, {1 << 19}), View(bytes, {1 << 19}));
  EXPECT_EQ(h.status(), absl::UnavailableError("queue is full: 4096 requests"));
  EXPECT_LE(num_calls, 7);
}

TEST_F(ClientTest, ManyThreadsShareAClient) {
  FakeServer server([](const FakeCall& call) { return EchoInfer(call); });
  const auto client = Connect(server.address());
  std::atomic<int> num_right = 0;
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (uint32_t k = 0; k < 20; ++k) {
        const std::string e = Pattern(2000 + 2 * k, 100 * t + k);
        const Shape shape = {static_cast<int64_t>(e.size() / 2)};
        const auto h = client->Forward(View(e, shape), View(e, shape));
        if (h.ok() && AsText(h->bytes()) == e) ++num_right;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_right, 160);
}

TEST_F(ClientTest, PassesTheServersCodeAndSentenceOn) {
  FakeReply reply;
  FakeServer server([&](const FakeCall&) { return reply; });
  const auto client = Connect(server.address());
  const std::vector<std::pair<grpc::StatusCode, std::string>> cases = {
      {grpc::StatusCode::NOT_FOUND, "unknown model 'swiglu_forward_fp16'"},
      {grpc::StatusCode::UNAVAILABLE, "queue is full: 4096 requests"},
      {grpc::StatusCode::RESOURCE_EXHAUSTED, "request of 9 bytes exceeds max_request_bytes 8"},
      {grpc::StatusCode::DEADLINE_EXCEEDED, ""},
      {grpc::StatusCode::INTERNAL, "device 0 failed"}};
  for (const auto& [code, message] : cases) {
    reply.status = grpc::Status(code, message);
    const absl::Status status = client->Forward(View(e_, shape_), View(g_, shape_)).status();
    EXPECT_EQ(static_cast<int>(status.code()), static_cast<int>(code));
    EXPECT_EQ(status.message(), message);
  }
}

TEST_F(ClientTest, KeepsADrainingServersWords) {
  FakeServer server([](const FakeCall&) {
    FakeReply reply = Refusal(grpc::StatusCode::UNAVAILABLE, "server is draining");
    reply.trailers["grpc-retry-pushback-ms"] = "1000";
    return reply;
  });
  EXPECT_EQ(Connect(server.address())->Forward(View(e_, shape_), View(g_, shape_)).status(),
            absl::UnavailableError("server is draining"));
}

TEST_F(ClientTest, ReportsAnAnswerToAnotherQuestionAsInternal) {
  FakeServer server([](const FakeCall& call) {
    inference::ModelInferRequest request;
    request.ParseFromString(call.message);
    auto response = EchoInfer(request);
    response.set_raw_output_contents(0, "short");
    return Answer(response);
  });
  const absl::Status status =
      Connect(server.address())->Forward(View(e_, shape_), View(g_, shape_)).status();
  EXPECT_EQ(status, absl::InternalError("bad response of 'swiglu_forward_fp16': output 'h' has 5 "
                                        "bytes; shape [3,4] of FP16 needs 24"));
}

TEST_F(ClientTest, ReportsGarbageAsInternal) {
  FakeServer server([](const FakeCall&) {
    FakeReply reply;
    reply.message = "\xff\xff\xff";
    return reply;
  });
  const auto client = Connect(server.address());
  EXPECT_EQ(client->Forward(View(e_, shape_), View(g_, shape_)).status().code(),
            absl::StatusCode::kInternal);
  EXPECT_EQ(client->ServerReady().status(),
            absl::InternalError("bad response: not a ServerReadyResponse"));
}

TEST_F(ClientTest, GivesUpAtTheDeadline) {
  FakeServer server([](const FakeCall&) {
    FakeReply reply;
    reply.never = true;
    return reply;
  });
  const auto client = Connect(server.address(), {.timeout = absl::Milliseconds(50)});
  EXPECT_EQ(client->Forward(View(e_, shape_), View(g_, shape_)).status(),
            absl::DeadlineExceededError(
                absl::StrCat("no answer from ", server.address(), " within 50ms")));
  CallOptions options;
  options.timeout = absl::Milliseconds(20);
  EXPECT_EQ(client->ServerLive(options).status(),
            absl::DeadlineExceededError(
                absl::StrCat("no answer from ", server.address(), " within 20ms")));
}

// What is left of a deadline that has passed is below zero, and zero for one that passes now.
TEST_F(ClientTest, SendsNothingWhenNoTimeIsLeft) {
  std::atomic<int> num_calls = 0;
  FakeServer server([&](const FakeCall& call) {
    ++num_calls;
    return EchoInfer(call);
  });
  const std::string large = Pattern(20'000, 1);
  for (const absl::Duration timeout :
       {-absl::Seconds(3), -absl::InfiniteDuration(), absl::ZeroDuration()}) {
    const absl::Status late = absl::DeadlineExceededError(
        absl::StrCat("no time for a call to ", server.address(), ": its timeout is ",
                     absl::FormatDuration(timeout)));
    CallOptions options;
    options.timeout = timeout;
    const auto client = Connect(server.address(), {.max_message_bytes = 4096});
    EXPECT_EQ(client->Forward(View(e_, shape_), View(g_, shape_), options).status(), late);
    EXPECT_EQ(
        client->Backward(View(dw_, shape_), View(e_, shape_), View(g_, shape_), options).status(),
        late);
    EXPECT_EQ(client->Forward(View(large, {10'000}), View(large, {10'000}), options).status(),
              late);
    EXPECT_EQ(client->ServerLive(options).status(), late);
    EXPECT_EQ(client->ServerReady(options).status(), late);
    EXPECT_EQ(client->ModelReady("m", options).status(), late);
    EXPECT_EQ(client->ServerMetadata(options).status(), late);
    EXPECT_EQ(client->ModelMetadata("m", options).status(), late);
    EXPECT_EQ(client->ListModels(options).status(), late);
    EXPECT_EQ(client->ModelStatistics("", options).status(), late);
    // What is wrong with the tensors comes first.
    EXPECT_EQ(client->Forward(View(e_, shape_), View(g_, {4, 3}), options).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(num_calls, 0);
}

// An attempt in one message and the chunks that follow it have one deadline, and no chunk is sent
// after it: the first message and the function that is told of the first chunk use the time up.
TEST_F(ClientTest, AllMessagesOfAnOperationShareItsTime) {
  constexpr absl::Duration kTimeout = absl::Seconds(2);
  std::atomic<int> num_calls = 0;
  absl::Time deadline;
  FakeServer server([&](const FakeCall& call) {
    deadline = call.deadline;
    if (++num_calls > 1) return EchoInfer(call);
    absl::SleepFor(kTimeout / 2);
    return Refusal(grpc::StatusCode::RESOURCE_EXHAUSTED, "too large");
  });
  const auto client = Connect(server.address(), {.num_connections = 1, .chunk_bytes = 4096});
  const std::string bytes = Pattern(20'000, 1);
  CallOptions options;
  options.timeout = kTimeout;
  const absl::Time start = absl::Now();
  options.on_chunk = [&](int64_t, int64_t) {
    absl::SleepFor(start + kTimeout + kTimeout / 8 - absl::Now());
  };
  EXPECT_EQ(
      client->Forward(View(bytes, {10'000}), View(bytes, {10'000}), options).status(),
      absl::DeadlineExceededError(absl::StrCat("no answer from ", server.address(), " within 2s")));
  EXPECT_EQ(num_calls, 2) << "the whole, and one chunk";
  // The server was told so, too; a busy machine may be late.
  EXPECT_LT(deadline - start, kTimeout + kTimeout / 3);
}

// The time that the server is told, counted from before the call. gRPC rounds it up, by less than a
// hundredth; a busy machine may be late to begin.
TEST_F(ClientTest, TellsTheServerHowMuchTimeThereIs) {
  absl::Time deadline;
  FakeServer server([&](const FakeCall& call) {
    deadline = call.deadline;
    if (call.method == "ModelInfer") return EchoInfer(call);
    return Answer(inference::ServerReadyResponse());
  });
  const auto expect = [&](double seconds, const std::function<absl::Status()>& call) {
    const absl::Time start = absl::Now();
    EXPECT_EQ(call(), absl::OkStatus());
    EXPECT_GE(deadline - start, absl::Seconds(seconds));
    EXPECT_LE(deadline - start, absl::Seconds(1.01 * seconds + 20));
  };
  const std::string large = Pattern(20'000'000, 1);
  const TensorView small_view = View(e_, shape_), large_view = View(large, {10'000'000});
  CallOptions options;
  options.timeout = absl::Seconds(300);
  const auto client = Connect(server.address());
  expect(30, [&] { return client->Forward(small_view, small_view).status(); });
  expect(30, [&] { return client->ServerReady().status(); });
  // 1 s for 100 MB.
  expect(30.4, [&] { return client->Forward(large_view, large_view).status(); });
  expect(30.6, [&] { return client->Backward(large_view, large_view, large_view).status(); });
  expect(300, [&] { return client->Forward(small_view, small_view, options).status(); });
  expect(300, [&] { return client->ServerReady(options).status(); });
  const auto patient = Connect(server.address(), {.timeout = absl::Seconds(900)});
  expect(900, [&] { return patient->Forward(small_view, small_view).status(); });
  expect(900, [&] { return patient->ServerReady().status(); });
  expect(300, [&] { return patient->ServerReady(options).status(); });
}

// A call that a server gets and does not answer, on a thread of its own. The server must end first.
class OpenCall {
 public:
  // Returns when the server has it, as `num_arrived` tells.
  OpenCall(Client& client, const TensorView& tensor, std::atomic<int>& num_arrived) {
    const int before = num_arrived.load();
    thread_ = std::thread([&client, tensor] { EXPECT_FALSE(client.Forward(tensor, tensor).ok()); });
    num_arrived.wait(before);
  }
  ~OpenCall() { thread_.join(); }

 private:
  std::thread thread_;
};

TEST_F(ClientTest, ACallTakesTheConnectionWithTheFewestBytes) {
  std::vector<std::string> peers;
  std::atomic<int> num_arrived = 0;
  auto server = std::make_unique<FakeServer>([&](const FakeCall& call) {
    peers.push_back(call.peer);
    ++num_arrived;
    num_arrived.notify_all();
    FakeReply reply;
    reply.never = true;
    return reply;
  });
  const std::string large = Pattern(100'000, 1);
  const auto client = Connect(server->address(), {.num_connections = 3});
  const OpenCall first(*client, View(large, {50'000}), num_arrived);
  const OpenCall second(*client, View(large, {50'000}), num_arrived);
  const OpenCall third(*client, View(e_, shape_), num_arrived);
  const OpenCall fourth(*client, View(e_, shape_), num_arrived);
  EXPECT_EQ(std::set<std::string>(peers.begin(), peers.end()).size(), 3u);
  EXPECT_EQ(peers[3], peers[2]);
  server.reset();
}

TEST_F(ClientTest, ChunksAreUnderWayOnEveryConnectionAtOnce) {
  constexpr int kReturned = 1000;
  std::atomic<int> num_arrived = 0;
  auto server = std::make_unique<FakeServer>([&](const FakeCall&) {
    ++num_arrived;
    num_arrived.notify_all();
    FakeReply reply;
    reply.never = true;
    return reply;
  });
  const std::string bytes = Pattern(100'000, 1);
  const auto client = Connect(server->address(), {.num_connections = 3, .max_message_bytes = 4096});
  std::thread caller([&] {
    EXPECT_FALSE(client->Forward(View(bytes, {50'000}), View(bytes, {50'000})).ok());
    num_arrived += kReturned;
    num_arrived.notify_all();
  });
  int now = num_arrived.load();
  for (; now < 3; now = num_arrived.load()) num_arrived.wait(now);
  EXPECT_LT(now, kReturned) << "the call's time was over before";
  server.reset();
  caller.join();
  EXPECT_EQ(num_arrived, kReturned + 3);
}

TEST_F(ClientTest, CallsAfterEachOtherNeedOneConnection) {
  std::set<std::string> peers;
  FakeServer server([&](const FakeCall& call) {
    peers.insert(call.peer);
    return EchoInfer(call);
  });
  const auto client = Connect(server.address(), {.num_connections = 4});
  for (int k = 0; k < 3; ++k) {
    EXPECT_TRUE(client->Forward(View(e_, shape_), View(g_, shape_)).ok());
  }
  EXPECT_EQ(peers.size(), 1u);
}

// A peer that takes no bytes any more loses the connection, and with it the caller's memory that is
// lent to it: the kernel sees to that, if it is told to.
TEST_F(ClientTest, TheKernelGivesUpOnAPeerThatTakesNothing) {
  FakeServer server([](const FakeCall& call) { return EchoInfer(call); });
  const auto client = Connect(server.address());
  ASSERT_TRUE(client->Forward(View(e_, shape_), View(g_, shape_)).ok());
  int num_found = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    const int fd = std::stoi(entry.path().filename());
    sockaddr_in peer = {};
    socklen_t size = sizeof(peer);
    if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) != 0) continue;
    if (!absl::EndsWith(server.address(), absl::StrCat(":", ntohs(peer.sin_port)))) continue;
    unsigned timeout_ms = 0;
    size = sizeof(timeout_ms);
    ASSERT_EQ(getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, &size), 0);
    EXPECT_EQ(timeout_ms, 20'000u);
    ++num_found;
  }
  EXPECT_EQ(num_found, 1);
}

TEST_F(ClientTest, FindsAServerThatComesBack) {
  auto server = std::make_unique<FakeServer>([](const FakeCall& call) { return EchoInfer(call); });
  const std::string address = server->address();
  const auto client = Connect(address, {.num_connections = 1});
  ASSERT_TRUE(client->Forward(View(e_, shape_), View(g_, shape_)).ok());
  server.reset();
  EXPECT_EQ(client->Forward(View(e_, shape_), View(g_, shape_)).status().code(),
            absl::StatusCode::kUnavailable);
  server =
      std::make_unique<FakeServer>([](const FakeCall& call) { return EchoInfer(call); }, address);
  // It tries again within a second; gRPC's own first pause is one, and grows to two minutes.
  absl::Status status = absl::UnavailableError("");
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (absl::IsUnavailable(status) && absl::Now() < deadline) {
    status = client->Forward(View(e_, shape_), View(g_, shape_)).status();
  }
  EXPECT_EQ(status, absl::OkStatus());
}

TEST_F(ClientTest, ReportsAnAnswerWithoutAMessageAsInternal) {
  FakeServer server([](const FakeCall&) {
    FakeReply reply;
    reply.no_message = true;
    return reply;
  });
  const auto client = Connect(server.address());
  EXPECT_EQ(client->Forward(View(e_, shape_), View(g_, shape_)).status().code(),
            absl::StatusCode::kInternal);
  EXPECT_EQ(client->ServerReady().status().code(), absl::StatusCode::kInternal);
}

TEST_F(ClientTest, SendsASmallRequestThatIsTooLargeOnlyOnce) {
  std::atomic<int> num_calls = 0;
  FakeServer server([&](const FakeCall&) {
    ++num_calls;
    return Refusal(grpc::StatusCode::RESOURCE_EXHAUSTED, "no");
  });
  EXPECT_EQ(Connect(server.address())->Forward(View(e_, shape_), View(g_, shape_)).status(),
            absl::ResourceExhaustedError("no"));
  EXPECT_EQ(num_calls, 1);
}

// Of the chunks that fail the first is told, and only one that came before it may follow.
TEST_F(ClientTest, TellsTheFirstErrorOfSeveral) {
  std::atomic<int> num_calls = 0;
  FakeServer server([&](const FakeCall&) {
    return Refusal(grpc::StatusCode::UNAVAILABLE, absl::StrCat("error ", ++num_calls));
  });
  const std::string bytes = Pattern(1 << 16, 7);
  const auto client = Connect(server.address(), {.num_connections = 1, .max_message_bytes = 4096});
  EXPECT_EQ(client->Forward(View(bytes, {1 << 15}), View(bytes, {1 << 15})).status(),
            absl::UnavailableError("error 1"));
  EXPECT_EQ(num_calls, 1);
}

TEST_F(ClientTest, SplitsEveryOperationIntoMessagesThatAreNotTooLarge) {
  std::atomic<size_t> largest = 0, num_calls = 0;
  FakeServer server([&](const FakeCall& call) {
    ++num_calls;
    largest = std::max<size_t>(largest, call.message.size());
    const FakeReply reply = EchoInfer(call);
    largest = std::max(largest.load(), reply.message.size());
    return reply;
  });
  for (const Dtype dtype : {Dtype::kFp16, Dtype::kFp32}) {
    for (const size_t size : {size_t{3}, size_t{1000}, size_t{5001}, size_t{20'000}}) {
      const std::string bytes = Pattern(size * 4, 3);
      const TensorView tensor{
          dtype, {static_cast<int64_t>(bytes.size()) / ElementBytes(dtype)}, AsBytes(bytes)};
      const auto client =
          Connect(server.address(), {.max_message_bytes = 10'000, .chunk_bytes = 8192});
      num_calls = 0;
      std::vector<int64_t> done;
      absl::Mutex mu;
      CallOptions options;
      options.on_chunk = [&](int64_t num_done, int64_t num_chunks) {
        absl::MutexLock lock(&mu);
        EXPECT_EQ(num_chunks, (static_cast<int64_t>(2 * bytes.size()) + 7679) / 7680);
        done.push_back(num_done);
      };
      const auto h = client->Forward(tensor, tensor, options);
      ASSERT_TRUE(h.ok()) << h.status();
      EXPECT_EQ(AsText(h->bytes()), bytes);
      EXPECT_LE(largest, 2 * bytes.size() > 9'800 ? 8192u : 10'000u);
      std::sort(done.begin(), done.end());
      for (size_t k = 0; k < done.size(); ++k) EXPECT_EQ(done[k], static_cast<int64_t>(k + 1));
      EXPECT_EQ(done.size(), num_calls == 1 ? 0 : num_calls.load());
      largest = 0;
    }
  }
}

TEST_F(ClientTest, AnExceptionOfTheCallersFunctionComesBackToTheCaller) {
  std::atomic<int> num_calls = 0;
  FakeServer server([&](const FakeCall& call) {
    ++num_calls;
    return EchoInfer(call);
  });
  const std::string bytes = Pattern(1 << 20, 7);
  const Shape shape = {1 << 19};
  for (const int num_connections : {1, 4}) {
    num_calls = 0;
    const auto client =
        Connect(server.address(), {.num_connections = num_connections, .max_message_bytes = 4096});
    CallOptions options;
    options.on_chunk = [](int64_t num_done, int64_t) {
      if (num_done == 3) throw std::runtime_error("enough");
    };
    try {
      client->Forward(View(bytes, shape), View(bytes, shape), options).IgnoreError();
      ADD_FAILURE() << "no exception";
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "enough");
    }
    // Each thread may have had a chunk under way, and have begun one more before it heard.
    EXPECT_LE(num_calls, 3 + 2 * num_connections);
    // The client works on.
    EXPECT_TRUE(client->Forward(View(e_, shape_), View(g_, shape_)).ok());
  }
}

TEST_F(ClientTest, TellsThatThereIsNoMemoryForAResult) {
#if defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
  GTEST_SKIP() << "the sanitizer ends a process that asks for so much";
#endif
#endif
  FakeServer server([](const FakeCall& call) { return EchoInfer(call); });
  // Only the size counts: nothing is read before the memory is there.
  constexpr int64_t kBytes = int64_t{1} << 60;
  const TensorView tensor{
      Dtype::kFp16, {kBytes / 2}, {AsBytes(e_).data(), static_cast<size_t>(kBytes)}};
  const auto client = Connect(server.address());
  const absl::Status refusal =
      absl::ResourceExhaustedError(absl::StrCat("no memory for output 'h': ", kBytes, " bytes"));
  EXPECT_EQ(client->Forward(tensor, tensor).status(), refusal);
  EXPECT_EQ(client->Backward(tensor, tensor, tensor).status(), refusal);
}

// The kernel cannot send what is not there.
TEST_F(ClientTest, DoesNotBlameTheNetworkForMemoryThatCannotBeRead) {
  FakeServer server([](const FakeCall& call) { return EchoInfer(call); });
  constexpr size_t kBytes = 1 << 20;
  void* const memory = mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  const TensorView tensor{
      Dtype::kFp16, {kBytes / 2}, {static_cast<const std::byte*>(memory), kBytes}};
  EXPECT_EQ(Connect(server.address())->Forward(tensor, tensor).status(),
            absl::UnavailableError(
                absl::StrCat("the connection to ", server.address(),
                             " broke: an input's memory cannot be read; was its file cut short?")));
  munmap(memory, kBytes);
}

TEST_F(ClientTest, NamesTheAddressOfAServerThatIsNotThere) {
  const Port port;
  const absl::Status status =
      Connect(port.address())->Forward(View(e_, shape_), View(g_, shape_)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              StartsWith(absl::StrCat("no connection to ", port.address(), ": ")));
}

TEST_F(ClientTest, NamesAMissingSocket) {
  const absl::Status status = Connect("unix:/nonexistent/socket")->ServerReady().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              StartsWith("no connection to unix:/nonexistent/socket: "));
}

TEST_F(ClientTest, IgnoresTheEnvironmentsProxy) {
  setenv("http_proxy", "http://127.0.0.1:1", 1);
  FakeServer server([](const FakeCall& call) { return EchoInfer(call); });
  EXPECT_TRUE(Connect(server.address())->Forward(View(e_, shape_), View(g_, shape_)).ok());
  unsetenv("http_proxy");
}

// The call's deadline passes in the middle of a message. The call must not return before gRPC has
// let go of it.
TEST_F(ClientTest, DoesNotReturnWhileItsMemoryIsInUse) {
  // On a busy machine the deadline may pass before the message begins to go, or the peer may hang
  // up before the deadline: then more time is due.
  std::string e(size_t{64} << 20, 'e');
  const Shape shape = {int64_t{32} << 20};
  for (absl::Duration timeout = absl::Milliseconds(300);; timeout *= 2) {
    ASSERT_LT(timeout, absl::Seconds(20)) << "no message ever begins to go";
    SilentPeer peer;
    absl::Notification returned;
    absl::Status status;
    std::thread caller([&] {
      const auto client = Connect(peer.address(), {.timeout = timeout});
      status = client->Forward(View(e, shape), View(e, shape)).status();
      returned.Notify();
      std::fill(e.begin(), e.end(), '\0');
    });
    const bool early = returned.WaitForNotificationWithTimeout(3 * timeout);
    const bool in_the_middle = peer.HangUp();
    caller.join();
    if (!in_the_middle || status.code() == absl::StatusCode::kUnavailable) continue;
    EXPECT_FALSE(early);
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
    return;
  }
}

TEST_F(ClientTest, TellsWhatTheServerSays) {
  FakeServer server([](const FakeCall& call) {
    if (call.method == "ServerLive") {
      inference::ServerLiveResponse response;
      response.set_live(true);
      return Answer(response);
    }
    if (call.method == "ServerReady") return Answer(inference::ServerReadyResponse());
    if (call.method == "ModelReady") {
      inference::ModelReadyRequest request;
      request.ParseFromString(call.message);
      inference::ModelReadyResponse response;
      response.set_ready(request.name() == "m");
      return Answer(response);
    }
    if (call.method == "ServerMetadata") {
      inference::ServerMetadataResponse response;
      response.set_name("swiglu-server");
      response.set_version("1.2.3");
      response.add_extensions("statistics");
      return Answer(response);
    }
    if (call.method == "RepositoryIndex") {
      inference::RepositoryIndexResponse response;
      auto* model = response.add_models();
      model->set_name("m");
      model->set_version("1");
      model->set_state("UNAVAILABLE");
      model->set_reason("draining");
      return Answer(response);
    }
    if (call.method == "ModelMetadata") {
      inference::ModelMetadataResponse response;
      response.set_name("m");
      response.set_platform("swiglu");
      response.add_versions("1");
      auto* input = response.add_inputs();
      input->set_name("e");
      input->set_datatype("FP16");
      input->add_shape(-1);
      response.add_outputs()->set_name("h");
      (*response.mutable_properties())["device"] = "cpu";
      return Answer(response);
    }
    inference::ModelStatisticsResponse response;
    auto* statistics = response.add_model_stats();
    statistics->set_name("m");
    statistics->set_inference_count(7);
    statistics->set_execution_count(3);
    auto* stats = statistics->mutable_inference_stats();
    stats->mutable_success()->set_count(6);
    stats->mutable_success()->set_ns(6000);
    stats->mutable_fail()->set_count(2);
    stats->mutable_queue()->set_ns(100);
    stats->mutable_compute_infer()->set_ns(200);
    return Answer(response);
  });
  const auto client = Connect(server.address());
  EXPECT_TRUE(client->ServerLive().value());
  EXPECT_FALSE(client->ServerReady().value());
  EXPECT_TRUE(client->ModelReady("m").value());
  EXPECT_FALSE(client->ModelReady("n").value());
  EXPECT_EQ(client->ServerMetadata()->version, "1.2.3");
  EXPECT_THAT(client->ServerMetadata()->extensions, ElementsAre("statistics"));
  const auto models = client->ListModels();
  ASSERT_TRUE(models.ok());
  EXPECT_EQ(models->at(0).reason, "draining");
  const auto info = client->ModelMetadata("m");
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->properties.at("device"), "cpu");
  EXPECT_EQ(info->inputs.at(0).shape, Shape{-1});
  EXPECT_EQ(info->outputs.at(0).name, "h");
  const auto counters = client->ModelStatistics("m");
  ASSERT_TRUE(counters.ok());
  EXPECT_EQ(counters->at(0).num_requests, 7);
  EXPECT_EQ(counters->at(0).num_batches, 3);
  EXPECT_EQ(counters->at(0).num_succeeded, 6);
  EXPECT_EQ(counters->at(0).num_failed, 2);
  EXPECT_EQ(counters->at(0).request_time, absl::Microseconds(6));
  EXPECT_EQ(counters->at(0).queue_time, absl::Nanoseconds(100));
  EXPECT_EQ(counters->at(0).compute_time, absl::Nanoseconds(200));
}

TEST(ClientCreateTest, TakesHostAndPortOrASocket) {
  for (const char* address : {"127.0.0.1:8001", "localhost:1", "[::1]:65535", "unix:/run/x"}) {
    EXPECT_TRUE(Client::Create(address).ok()) << address;
  }
}

TEST(ClientCreateTest, RefusesOtherAddresses) {
  for (const char* address :
       {"", "localhost", ":8001", "localhost:", "localhost:0", "localhost:65536", "localhost:http",
        "::1:80", "http://x:80", "unix:", "dns:///x:80"}) {
    EXPECT_EQ(Client::Create(address).status().code(), absl::StatusCode::kInvalidArgument)
        << address;
  }
  EXPECT_EQ(
      Client::Create("localhost").status().message(),
      "bad server address 'localhost': the port is missing; it takes HOST:PORT or unix:/path");
}

TEST(ClientCreateTest, RefusesOptionsOutOfRange) {
  const auto message = [](const Options& options) {
    return std::string(Client::Create("localhost:1", options).status().message());
  };
  EXPECT_EQ(message({.timeout = -absl::Seconds(1)}), "option timeout is -1s; it takes 0 or more");
  EXPECT_EQ(message({.num_connections = 65}), "option num_connections is 65; it takes 0 to 64");
  EXPECT_EQ(message({.num_connections = -1}), "option num_connections is -1; it takes 0 to 64");
  EXPECT_EQ(message({.max_message_bytes = int64_t{1} << 31}),
            "option max_message_bytes is 2147483648; it takes 4096 to 2147483647");
  EXPECT_EQ(message({.chunk_bytes = 4095}),
            "option chunk_bytes is 4095; it takes 4096 to 2147483647");
  EXPECT_TRUE(Client::Create("localhost:1", {.num_connections = 64,
                                             .max_message_bytes = 4096,
                                             .chunk_bytes = (int64_t{1} << 31) - 1})
                  .ok());
  EXPECT_EQ(message({.max_message_bytes = 4095}),
            "option max_message_bytes is 4095; it takes 4096 to 2147483647");
  EXPECT_EQ(message({.chunk_bytes = int64_t{1} << 31}),
            "option chunk_bytes is 2147483648; it takes 4096 to 2147483647");
}

}  // namespace
}  // namespace swiglu::client
