// SPDX-License-Identifier: Apache-2.0
//
// When a call is tried again: the rules by themselves, and the library against a server that
// refuses.
#include "client/retry.h"

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "swiglu/client.h"
#include "tests/client/bytes.h"
#include "tests/client/client_fixture.h"
#include "tests/client/fake_server.h"

namespace swiglu::client {
namespace {

constexpr double kAlmostOne = 0.999999;

FailedAttempt Unavailable(int number, absl::optional<absl::Duration> pushback = absl::nullopt) {
  return {absl::UnavailableError("busy"), pushback, number};
}

TEST(RetryTest, WaitsARandomPartOfATimeThatDoublesUpToASecond) {
  const std::vector<int> most_ms = {50, 100, 200, 400, 800, 1000, 1000};
  for (size_t i = 0; i < most_ms.size(); ++i) {
    const FailedAttempt failed = Unavailable(static_cast<int>(i) + 1);
    EXPECT_EQ(WaitBeforeRetry(failed, 0), absl::ZeroDuration());
    EXPECT_EQ(WaitBeforeRetry(failed, 0.5), absl::Milliseconds(most_ms[i]) / 2);
    EXPECT_LE(*WaitBeforeRetry(failed, kAlmostOne), absl::Milliseconds(most_ms[i]));
  }
  EXPECT_EQ(WaitBeforeRetry(Unavailable(100), 0.5), absl::Milliseconds(500));
}

// A channel that could not connect needs its time to try again.
TEST(RetryTest, WaitsForAllOfThatTimeIfThereWasNoConnection) {
  FailedAttempt lost = Unavailable(1);
  lost.is_lost = true;
  EXPECT_EQ(WaitBeforeRetry(lost, 0), absl::Milliseconds(50));
  EXPECT_EQ(WaitBeforeRetry(lost, 0.5), absl::Milliseconds(75));
  lost.number = 100;
  EXPECT_EQ(WaitBeforeRetry(lost, 0), absl::Seconds(1));
  EXPECT_EQ(WaitBeforeRetry(lost, 0.5), absl::Milliseconds(1500));
}

TEST(RetryTest, WaitsAtLeastAsLongAsTheServerSays) {
  for (const int number : {1, 5}) {
    EXPECT_EQ(WaitBeforeRetry(Unavailable(number, absl::Milliseconds(100)), 0),
              absl::Milliseconds(100));
    EXPECT_EQ(WaitBeforeRetry(Unavailable(number, absl::Milliseconds(100)), 0.5),
              absl::Milliseconds(125));
  }
  EXPECT_EQ(WaitBeforeRetry({absl::ResourceExhaustedError(""), absl::Seconds(2), 1}, 0),
            absl::Seconds(2));
}

TEST(RetryTest, DoesNotRetryWhatTheServerForbidsOrWhatWouldFailAgain) {
  EXPECT_EQ(WaitBeforeRetry(Unavailable(1, absl::Milliseconds(-1)), 0), absl::nullopt);
  EXPECT_EQ(WaitBeforeRetry({absl::InternalError(""), absl::Milliseconds(1), 1}, 0), absl::nullopt);
  for (const absl::StatusCode code :
       {absl::StatusCode::kInvalidArgument, absl::StatusCode::kInternal,
        absl::StatusCode::kDeadlineExceeded, absl::StatusCode::kResourceExhausted}) {
    EXPECT_EQ(WaitBeforeRetry({absl::Status(code, ""), absl::nullopt, 1}, 0), absl::nullopt);
  }
}

TEST(RetryTest, ABudgetIsAShareOfTheCallsAndAFewMore) {
  RetryBudget budget(0.1);
  int num_retries = 0;
  for (int i = 0; i < 1000; ++i) {
    budget.EarnByCall();
    while (budget.SpendOnRetry()) ++num_retries;
  }
  EXPECT_GE(num_retries, 108);
  EXPECT_LE(num_retries, 110);
}

TEST(RetryTest, ABudgetThatIsNotUsedDoesNotGrow) {
  RetryBudget budget(1);
  for (int i = 0; i < 1000; ++i) budget.EarnByCall();
  int num_retries = 0;
  while (budget.SpendOnRetry()) ++num_retries;
  EXPECT_EQ(num_retries, static_cast<int>(RetryBudget::kMostRetries));
}

TEST(RetryTest, NoBudgetMeansNoRetries) {
  RetryBudget budget(0);
  for (int i = 0; i < 100; ++i) budget.EarnByCall();
  EXPECT_FALSE(budget.SpendOnRetry());
}

TEST(RetryTest, RandomSharesDiffer) {
  const double first = RandomShare(), second = RandomShare();
  EXPECT_NE(first, second);
  for (const double share : {first, second}) {
    EXPECT_GE(share, 0);
    EXPECT_LT(share, 1);
  }
}

TEST(RetryTest, RandomSharesOfThreadsDiffer) {
  double shares[2] = {};
  for (double& share : shares) std::thread([&share] { share = RandomShare(); }).join();
  EXPECT_NE(shares[0], shares[1]);
}

// A server that refuses the first calls and answers the others.
class RetryingClientTest : public ClientTest {
 protected:
  void Serve(int num_refusals, FakeReply refusal) {
    server_ = std::make_unique<FakeServer>([this, num_refusals, refusal](const FakeCall& call) {
      absl::MutexLock lock(&mutex_);
      times_.push_back(absl::Now());
      return static_cast<int>(times_.size()) <= num_refusals ? refusal : EchoInfer(call);
    });
  }
  static FakeReply PushBack(const std::string& ms) {
    FakeReply reply = Refusal(grpc::StatusCode::UNAVAILABLE, "queue is full: 4096 requests");
    reply.trailers["grpc-retry-pushback-ms"] = ms;
    return reply;
  }
  int num_calls() {
    absl::MutexLock lock(&mutex_);
    return static_cast<int>(times_.size());
  }

  absl::Mutex mutex_;
  std::vector<absl::Time> times_;
  std::unique_ptr<FakeServer> server_;
};

TEST_F(RetryingClientTest, ARefusedCallSucceedsInTheEnd) {
  Serve(3, Refusal(grpc::StatusCode::UNAVAILABLE, "busy"));
  const auto h = Connect(server_->address())->Forward(View(e_, shape_), View(g_, shape_));
  ASSERT_TRUE(h.ok()) << h.status();
  EXPECT_EQ(AsText(h->bytes()), e_);
  EXPECT_EQ(num_calls(), 4);
}

TEST_F(RetryingClientTest, TellsHowOftenItTried) {
  Serve(1000, Refusal(grpc::StatusCode::UNAVAILABLE, "busy"));
  EXPECT_EQ(
      Unnamed(Connect(server_->address())->Forward(View(e_, shape_), View(g_, shape_)).status()),
      absl::UnavailableError("busy (tried 4 times)"));
  EXPECT_EQ(num_calls(), 4);
}

TEST_F(RetryingClientTest, LeavesAServerAloneForAsLongAsItSays) {
  Serve(2, PushBack("70"));
  ASSERT_TRUE(Connect(server_->address())->Forward(View(e_, shape_), View(g_, shape_)).ok());
  ASSERT_EQ(num_calls(), 3);
  for (int i = 1; i < 3; ++i) EXPECT_GE(times_[i] - times_[i - 1], absl::Milliseconds(70));
}

TEST_F(RetryingClientTest, DoesNotRetryWhatTheServerForbids) {
  for (const char* const never : {"-1", "soon", ""}) {
    Serve(1, PushBack(never));
    EXPECT_EQ(
        Unnamed(Connect(server_->address())->Forward(View(e_, shape_), View(g_, shape_)).status()),
        absl::UnavailableError("queue is full: 4096 requests"))
        << never;
    EXPECT_EQ(num_calls(), 1) << never;
    server_.reset();
    times_.clear();
  }
}

// A wait that would outlast the call's time is not begun.
TEST_F(RetryingClientTest, DoesNotWaitForWhatComesTooLate) {
  Serve(1000, PushBack("3600000"));
  const absl::Time start = absl::Now();
  EXPECT_EQ(Unnamed(Connect(server_->address(), {.timeout = absl::Seconds(600)})
                        ->Forward(View(e_, shape_), View(g_, shape_))
                        .status()),
            absl::UnavailableError("queue is full: 4096 requests"));
  EXPECT_LT(absl::Now() - start, absl::Seconds(600));
  EXPECT_EQ(num_calls(), 1);
}

TEST_F(RetryingClientTest, KeepsToItsBudget) {
  Serve(1 << 30, PushBack("0"));
  const auto client = Connect(server_->address(), {.max_attempts = 100, .retry_budget = 0.1});
  constexpr int kCalls = 50;
  for (int i = 0; i < kCalls; ++i) {
    EXPECT_FALSE(client->Forward(View(e_, shape_), View(g_, shape_)).ok());
  }
  EXPECT_GE(num_calls(), kCalls + 14);
  EXPECT_LE(num_calls(), kCalls + 15);
}

// The server may have computed over the input before it was lost. After a pushback it has not
// begun.
TEST_F(RetryingClientTest, WhatOverwritesItsInputIsSentAgainOnlyAfterAPushback) {
  const RegionPart whole{"r", 48, 0, 24}, other{"r", 48, 24, 24};
  const InputTensor e{Dtype::kFp16, shape_, whole};
  for (const bool pushes_back : {false, true}) {
    for (const bool overwrites : {false, true}) {
      times_.clear();
      Serve(1, pushes_back ? PushBack("1") : Refusal(grpc::StatusCode::UNAVAILABLE, "busy"));
      const auto client = Connect(server_->address());
      client->ForwardInto(e, View(g_, shape_), overwrites ? whole : other).IgnoreError();
      EXPECT_EQ(num_calls(), overwrites && !pushes_back ? 1 : 2) << pushes_back << overwrites;
      server_.reset();
    }
  }
}

TEST_F(RetryingClientTest, OtherCallsAreSentOnce) {
  Serve(1, Refusal(grpc::StatusCode::UNAVAILABLE, "busy"));
  EXPECT_EQ(Unnamed(Connect(server_->address())->ServerReady().status()),
            absl::UnavailableError("busy"));
  EXPECT_EQ(num_calls(), 1);
}

// ---- Split operations ----

// A server that takes messages of so many bytes, and of these so many before it refuses one as ours
// does when it is full.
class NarrowServer {
 public:
  NarrowServer(int num_between, size_t most_bytes)
      : num_between_(num_between), most_bytes_(most_bytes) {}

  FakeReply operator()(const FakeCall& call) {
    absl::MutexLock lock(&mutex_);
    ++num_calls;
    if (call.message.size() > most_bytes_) {
      ++num_too_large;
      return Refusal(grpc::StatusCode::RESOURCE_EXHAUSTED, "too large");
    }
    if (num_calls % (num_between_ + 1) == 0) {
      FakeReply reply = Refusal(grpc::StatusCode::UNAVAILABLE, "memory budget is in use");
      reply.trailers["grpc-retry-pushback-ms"] = "1";
      return reply;
    }
    largest = std::max(largest, call.message.size());
    return EchoInfer(call);
  }

  int num_calls = 0, num_too_large = 0;
  size_t largest = 0;

 private:
  const int num_between_;
  const size_t most_bytes_;
  absl::Mutex mutex_;
};

TEST_F(RetryingClientTest, ASplitOperationOutlivesRefusals) {
  NarrowServer narrow(/*num_between=*/1, /*most_bytes=*/1 << 20);
  FakeServer server([&](const FakeCall& call) { return narrow(call); });
  const std::string bytes = Pattern(200'000, 3);
  const auto client = Connect(server.address(),
                              {.num_connections = 4, .max_message_bytes = 4096, .retry_budget = 0});
  const auto h = client->Forward(View(bytes, {100'000}), View(bytes, {100'000}));
  ASSERT_TRUE(h.ok()) << h.status();
  EXPECT_EQ(AsText(h->bytes()), bytes);
  EXPECT_GT(narrow.num_calls, 100) << "every second message was refused";
}

TEST_F(RetryingClientTest, ChunksGetAsSmallAsTheServerWants) {
  NarrowServer narrow(/*num_between=*/1000, /*most_bytes=*/20'000);
  FakeServer server([&](const FakeCall& call) { return narrow(call); });
  const std::string bytes = Pattern(1'000'000, 3);
  const auto client = Connect(server.address(), {.num_connections = 1, .chunk_bytes = 300'000});
  int64_t num_done = 0, num_chunks = 0;
  CallOptions options;
  options.on_chunk = [&](int64_t done, int64_t chunks) {
    EXPECT_EQ(done, num_done + 1);
    num_done = done;
    num_chunks = chunks;
  };
  const auto h = client->Forward(View(bytes, {500'000}), View(bytes, {500'000}), options);
  ASSERT_TRUE(h.ok()) << h.status();
  EXPECT_EQ(AsText(h->bytes()), bytes);
  EXPECT_EQ(num_done, num_chunks);
  EXPECT_EQ(narrow.num_too_large, 5) << "the whole, 300, 150, 75 and 37.5 KB";
  EXPECT_GT(narrow.largest, 10'000u);
}

TEST_F(RetryingClientTest, AServerThatTakesNoChunkIsNotAskedForever) {
  NarrowServer narrow(1000, /*most_bytes=*/100);
  FakeServer server([&](const FakeCall& call) { return narrow(call); });
  const std::string bytes = Pattern(100'000, 3);
  const auto client = Connect(server.address(), {.num_connections = 1, .chunk_bytes = 4096});
  EXPECT_EQ(Unnamed(client->Forward(View(bytes, {50'000}), View(bytes, {50'000})).status()),
            absl::ResourceExhaustedError("too large"));
  EXPECT_LE(narrow.num_calls, 4);
}

TEST_F(RetryingClientTest, ASplitOperationFailsWhenItsServerWantsToBeLeftAloneForTooLong) {
  std::atomic<int> num_calls = 0;
  FakeServer server([&](const FakeCall&) { return PushBack(++num_calls < 10 ? "1" : "3600000"); });
  const std::string bytes = Pattern(100'000, 3);
  const auto client = Connect(server.address(), {.timeout = absl::Seconds(600),
                                                 .num_connections = 2,
                                                 .max_message_bytes = 4096,
                                                 .retry_budget = 0});
  EXPECT_EQ(Unnamed(client->Forward(View(bytes, {50'000}), View(bytes, {50'000})).status()),
            absl::UnavailableError("queue is full: 4096 requests"));
  EXPECT_GE(num_calls, 10);
  EXPECT_LE(num_calls, 11) << "the other thread's chunk may have been under way";
}

}  // namespace
}  // namespace swiglu::client
