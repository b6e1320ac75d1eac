// SPDX-License-Identifier: Apache-2.0
//
// The library with operations that take several messages, against servers that answer and refuse.
#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "swiglu/client.h"
#include "tests/client/bytes.h"
#include "tests/client/client_fixture.h"
#include "tests/client/fake_server.h"

namespace swiglu::client {
namespace {

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
  const auto client = Connect(server.address(),
                              {.num_connections = 2, .max_message_bytes = 4096, .max_attempts = 1});
  const auto h = client->Forward(View(bytes, {1 << 19}), View(bytes, {1 << 19}));
  EXPECT_EQ(Unnamed(h.status()), absl::UnavailableError("queue is full: 4096 requests"));
  EXPECT_LE(num_calls, 7);
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

TEST_F(ClientTest, SendsASmallRequestThatIsTooLargeOnlyOnce) {
  std::atomic<int> num_calls = 0;
  FakeServer server([&](const FakeCall&) {
    ++num_calls;
    return Refusal(grpc::StatusCode::RESOURCE_EXHAUSTED, "no");
  });
  EXPECT_EQ(
      Unnamed(Connect(server.address())->Forward(View(e_, shape_), View(g_, shape_)).status()),
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
  const auto client = Connect(server.address(),
                              {.num_connections = 1, .max_message_bytes = 4096, .max_attempts = 1});
  EXPECT_EQ(Unnamed(client->Forward(View(bytes, {1 << 15}), View(bytes, {1 << 15})).status()),
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

}  // namespace
}  // namespace swiglu::client
