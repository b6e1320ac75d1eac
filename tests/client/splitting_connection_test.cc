// SPDX-License-Identifier: Apache-2.0
//
// Chunks under way: what they have, what one of them does to the others, and how the operation
// ends. chunk_queue_test.cc has the choice of chunks, client_chunks_test.cc the whole client.
#include "client/splitting_connection.h"

#include <atomic>
#include <exception>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/event_queue.h"
#include "client/infer_codec.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/fake_choice.h"
#include "tests/client/fake_connection.h"

namespace swiglu::client {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int64_t kSmallChunk = 8192;

Options SmallChunks(int num_connections) {
  Options options;
  options.num_connections = num_connections;
  options.chunk_bytes = kSmallChunk;
  options.max_message_bytes = kSmallChunk;
  return options;
}

CallResult PushedBack(absl::Duration pushback) {
  CallResult result = ResultOf(absl::UnavailableError("full"));
  result.pushback = pushback;
  return result;
}

class SplittingConnectionTest : public ::testing::Test {
 protected:
  void Use(const Options& options) {
    connection_ = std::make_unique<SplittingConnection>(&inner_, options, 1, &servers_, &threads_);
  }

  // A client of the default options that spreads a large inference over so many connections.
  void UseParts(int most_parts) {
    connection_ =
        std::make_unique<SplittingConnection>(&inner_, Options(), most_parts, &servers_, &threads_);
  }

  void Start() { call_.Start(*connection_); }

  // Answers with OK what comes, from number `next` on, until the operation has ended. When all
  // elements are done, it ends soon, maybe on another thread.
  void AnswerRest(size_t next) {
    while (!call_.HasEnded() && inner_.num_elements_done() < call_.inference().num_elements()) {
      inner_.WaitForArrivals(next + 1);
      inner_.Answer(next++, ResultOf(absl::OkStatus()));
    }
    call_.Wait();
  }

  FakeConnection inner_;
  FakeChoice servers_;
  EventThreads threads_{2, [] {}};
  std::unique_ptr<SplittingConnection> connection_ =
      std::make_unique<SplittingConnection>(&inner_, SmallChunks(3), 1, &servers_, &threads_);
  TestCall call_{{5, 1900}, 1};  // 19,000 bytes for each tensor, which makes 5 chunks
};

TEST_F(SplittingConnectionTest, WhatFitsIsNotTouched) {
  TestCall small({10, 10}, 1);
  small.Start(*connection_);
  const Arrival arrival = inner_.arrival(0);
  EXPECT_EQ(arrival.inference, &small.inference());
  EXPECT_FALSE(arrival.context.return_pushback);
  inner_.Answer(0, ResultOf(absl::OkStatus()));
  EXPECT_TRUE(small.IsRight());
}

TEST_F(SplittingConnectionTest, ChunksAreConsecutiveElements) {
  Start();
  EXPECT_EQ(inner_.num_arrivals(), 3u) << "one for each connection";
  AnswerRest(0);
  EXPECT_EQ(call_.status(), absl::OkStatus());
  EXPECT_TRUE(call_.IsRight());
  ASSERT_EQ(inner_.num_arrivals(), 5u);
  std::string e, g;
  for (size_t i = 0; i < 5; ++i) {
    const Arrival chunk = inner_.arrival(i);
    e += chunk.inputs[0];
    g += chunk.inputs[1];
    EXPECT_THAT(chunk.shape, ElementsAre(static_cast<int64_t>(chunk.inputs[0].size() / 2)));
    EXPECT_LT(2 * chunk.inputs[0].size(), static_cast<size_t>(kSmallChunk));
    EXPECT_TRUE(chunk.context.return_pushback);
    EXPECT_NE(chunk.context.queue, nullptr);
    EXPECT_EQ(chunk.context.limit.deadline, inner_.arrival(0).context.limit.deadline);
  }
  EXPECT_EQ(e, call_.input(0));
  EXPECT_EQ(g, call_.input(1));
}

TEST_F(SplittingConnectionTest, ChunksGoToEachServer) {
  servers_.set_num_servers(2);
  inner_.set_num_servers(2);
  Use(SmallChunks(2));
  Start();
  EXPECT_EQ(inner_.num_arrivals(), 4u);
  AnswerRest(0);
  EXPECT_TRUE(call_.IsRight());
}

TEST_F(SplittingConnectionTest, TheNextChunkStartsWhenOneEnds) {
  Start();
  inner_.Answer(2);
  EXPECT_EQ(inner_.num_arrivals(), 4u);
  inner_.Answer(0);
  EXPECT_EQ(inner_.num_arrivals(), 5u);
  inner_.Answer(4);
  inner_.Answer(3);
  EXPECT_FALSE(call_.HasEnded());
  inner_.Answer(1);
  EXPECT_TRUE(call_.HasEnded());
  EXPECT_TRUE(call_.IsRight());
}

TEST_F(SplittingConnectionTest, WhatIsLargeAndAloneGoesInParts) {
  UseParts(4);
  TestCall call({1024, 1024}, 1);
  call.Start(*connection_);
  ASSERT_EQ(inner_.num_arrivals(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_THAT(inner_.arrival(i).shape, ElementsAre(256 * 1024));
    inner_.Answer(i);
  }
  EXPECT_TRUE(call.IsRight());
}

TEST_F(SplittingConnectionTest, PartsHaveALeastSize) {
  UseParts(16);
  TestCall call({1024, 256}, 1);  // 1 MiB in both inputs
  call.Start(*connection_);
  EXPECT_EQ(inner_.num_arrivals(), 4u);
  TestCall smaller({1023, 256}, 1);
  smaller.Start(*connection_);
  EXPECT_EQ(inner_.num_arrivals(), 5u);
  for (size_t i = 0; i < 5; ++i) inner_.Answer(i);
  EXPECT_TRUE(call.IsRight());
  EXPECT_TRUE(smaller.IsRight());
}

TEST_F(SplittingConnectionTest, LargeOnesShareTheConnections) {
  UseParts(4);
  TestCall first({1024, 1024}, 1), second({1024, 1024}, 2), third({1024, 1024}, 3);
  first.Start(*connection_);
  second.Start(*connection_);
  EXPECT_EQ(inner_.num_arrivals(), 4u + 2);
  third.Start(*connection_);
  EXPECT_EQ(inner_.num_arrivals(), 4u + 2 + 1);
  for (size_t i = 0; i < 7; ++i) inner_.Answer(i);
  EXPECT_TRUE(first.IsRight());
  EXPECT_TRUE(second.IsRight());
  EXPECT_TRUE(third.IsRight());
  TestCall later({1024, 1024}, 4);
  later.Start(*connection_);
  EXPECT_EQ(inner_.num_arrivals(), 7u + 4) << "the others have ended";
  for (size_t i = 7; i < 11; ++i) inner_.Answer(i);
  EXPECT_TRUE(later.IsRight());
}

TEST_F(SplittingConnectionTest, ASmallerChunkThanAPartIsTheUsersWish) {
  Options options;
  options.chunk_bytes = 100'000;
  connection_ = std::make_unique<SplittingConnection>(&inner_, options, 4, &servers_, &threads_);
  TestCall call({1024, 1024}, 1);
  call.Start(*connection_);
  EXPECT_EQ(inner_.num_arrivals(), 1u) << "it fits into one message";
  inner_.Answer(0);
  EXPECT_TRUE(call.IsRight());
}

TEST_F(SplittingConnectionTest, PartsPayForRetriesTogetherAndReportNothing) {
  UseParts(4);
  TestCall call({1024, 1024}, 1);
  call.options.on_chunk = [](int64_t, int64_t) { ADD_FAILURE() << "it is one call"; };
  call.Start(*connection_);
  ASSERT_EQ(inner_.num_arrivals(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_NE(inner_.arrival(i).context.paid_retries, nullptr);
    EXPECT_EQ(inner_.arrival(i).context.paid_retries, inner_.arrival(0).context.paid_retries);
    inner_.Answer(i);
  }
  EXPECT_TRUE(call.IsRight());
}

TEST_F(SplittingConnectionTest, APartThatIsTooLargeIsNotCut) {
  UseParts(4);
  TestCall call({1024, 1024}, 1);
  call.Start(*connection_);
  inner_.Answer(0, ResultOf(absl::ResourceExhaustedError("too large")));
  for (size_t i = 1; i < 4; ++i) inner_.Answer(i);
  call.Wait();
  EXPECT_EQ(call.status(), absl::ResourceExhaustedError("too large"));
  EXPECT_EQ(inner_.num_arrivals(), 4u);
}

TEST_F(SplittingConnectionTest, PartsAreRefusedForGoodAfterTheirAttempts) {
  UseParts(2);
  TestCall call({1024, 1024}, 1);
  call.Start(*connection_);
  // Two parts with four attempts each, of which the last ones decide.
  size_t num_answered = 0;
  for (; num_answered < 7; ++num_answered) {
    inner_.WaitForArrivals(num_answered + 1);
    inner_.Answer(num_answered, PushedBack(absl::ZeroDuration()));
  }
  while (!call.HasEnded()) inner_.Answer(num_answered++, PushedBack(absl::ZeroDuration()));
  EXPECT_EQ(call.status(), absl::UnavailableError("full"));
  EXPECT_LE(inner_.num_arrivals(), 8u);
}

TEST_F(SplittingConnectionTest, AddsTheStatisticsUp) {
  Start();
  for (size_t i = 0; i < 5; ++i) {
    CallResult result = ResultOf(absl::OkStatus());
    result.statistics.num_messages = 2;
    result.statistics.bytes_sent = 100;
    result.statistics.bytes_received = 10;
    if (i < 4) result.statistics.server = i == 3 ? "LAST" : "FIRST";
    if (i < 2) result.statistics.queue_time = absl::Milliseconds(3);
    if (i < 3) result.statistics.compute_time = absl::Milliseconds(5);
    inner_.Answer(i, result);
  }
  const CallStatistics& statistics = call_.Wait().statistics;
  EXPECT_EQ(statistics.num_messages, 10);
  EXPECT_EQ(statistics.bytes_sent, 500);
  EXPECT_EQ(statistics.bytes_received, 50);
  EXPECT_EQ(statistics.server, "LAST");
  EXPECT_EQ(statistics.queue_time, absl::Milliseconds(6));
  EXPECT_EQ(statistics.compute_time, absl::Milliseconds(15));
  EXPECT_EQ(statistics.num_joined, 1);
}

TEST_F(SplittingConnectionTest, TellsTheProgress) {
  std::vector<std::pair<int64_t, int64_t>> progress;
  call_.options.on_chunk = [&](int64_t num_done, int64_t num_chunks) {
    progress.emplace_back(num_done, num_chunks);
  };
  Start();
  AnswerRest(0);
  EXPECT_THAT(progress, ElementsAre(std::pair(1, 5), std::pair(2, 5), std::pair(3, 5),
                                    std::pair(4, 5), std::pair(5, 5)));
}

TEST_F(SplittingConnectionTest, AFailureLetsNoFurtherChunkStart) {
  Start();
  inner_.Answer(1, ResultOf(absl::InternalError("first")));
  inner_.Answer(0, ResultOf(absl::OkStatus()));
  EXPECT_FALSE(call_.HasEnded()) << "a chunk still uses the memory";
  inner_.Answer(2, ResultOf(absl::UnknownError("second")));
  EXPECT_EQ(call_.status(), absl::InternalError("first"));
  EXPECT_EQ(inner_.num_arrivals(), 3u);
  EXPECT_EQ(call_.Wait().statistics.num_messages, 3);
}

TEST_F(SplittingConnectionTest, ACancelledOperationEndsItsChunks) {
  Start();
  bool is_stopped = false;
  inner_.arrival(1).context.cancellation->SetStop([&] { is_stopped = true; });
  inner_.Answer(1);
  ASSERT_EQ(inner_.num_arrivals(), 4u);
  for (const size_t i : {0, 2, 3}) {
    EXPECT_FALSE(inner_.arrival(i).context.cancellation->is_cancelled());
  }
  call_.cancellation().Cancel();
  EXPECT_EQ(inner_.num_arrivals(), 4u);
  for (const size_t i : {0, 2, 3}) {
    EXPECT_FALSE(call_.HasEnded());
    EXPECT_TRUE(inner_.arrival(i).context.cancellation->is_cancelled());
    inner_.Answer(i, ResultOf(absl::CancelledError("chunk")));
  }
  EXPECT_EQ(call_.status(), absl::CancelledError("the call was cancelled"));
  EXPECT_EQ(inner_.num_arrivals(), 4u);
  EXPECT_FALSE(is_stopped) << "its chunk had ended";
}

TEST_F(SplittingConnectionTest, ACancelledOperationSendsNothing) {
  call_.cancellation().Cancel();
  Start();
  EXPECT_EQ(call_.status(), absl::CancelledError("the call was cancelled"));
  EXPECT_EQ(inner_.num_arrivals(), 0u);
}

TEST_F(SplittingConnectionTest, ACancelledOperationDoesNotWaitForAServerToOpen) {
  Use(SmallChunks(1));
  call_.timeout = absl::Hours(2);
  Start();
  inner_.Answer(0, PushedBack(absl::Minutes(30)));
  EXPECT_FALSE(call_.HasEnded());
  call_.cancellation().Cancel();
  EXPECT_EQ(call_.status(), absl::CancelledError("the call was cancelled"));
  EXPECT_EQ(inner_.num_arrivals(), 1u);
}

// The second pushback comes while the operation waits for the end of the first.
TEST_F(SplittingConnectionTest, ACancelledOperationWaitsForNoneOfItsPushbacks) {
  call_.timeout = absl::Hours(2);
  Start();
  inner_.Answer(2, PushedBack(absl::Minutes(30)));
  inner_.Answer(0);
  inner_.Answer(1, PushedBack(absl::Minutes(30)));
  EXPECT_FALSE(call_.HasEnded());
  call_.cancellation().Cancel();
  EXPECT_EQ(call_.status(), absl::CancelledError("the call was cancelled"));
  EXPECT_EQ(inner_.num_arrivals(), 3u);
}

TEST_F(SplittingConnectionTest, AnOperationThatHasEndedMayBeCancelled) {
  Start();
  AnswerRest(0);
  call_.cancellation().Cancel();
  EXPECT_EQ(call_.status(), absl::OkStatus());
}

TEST_F(SplittingConnectionTest, AChunkThatIsPushedBackComesBack) {
  Start();
  const std::string e = inner_.arrival(1).inputs[0];
  inner_.Answer(1, PushedBack(absl::Milliseconds(1)));
  inner_.Answer(0);
  inner_.Answer(2);
  inner_.WaitForArrivals(4);
  EXPECT_EQ(inner_.arrival(3).inputs[0], e);
  AnswerRest(3);
  EXPECT_EQ(call_.status(), absl::OkStatus());
  EXPECT_TRUE(call_.IsRight());
  EXPECT_EQ(inner_.num_arrivals(), 6u);
}

TEST_F(SplittingConnectionTest, WaitsNoLongerThanUntilAServerOpens) {
  servers_.set_time_until_open(absl::Milliseconds(1));
  Use(SmallChunks(1));
  Start();
  inner_.Answer(0, PushedBack(absl::Seconds(30)));
  AnswerRest(1);
  EXPECT_TRUE(call_.IsRight());
}

TEST_F(SplittingConnectionTest, APushbackBeyondTheDeadlineIsTheEnd) {
  Start();
  inner_.Answer(1, PushedBack(absl::Hours(1)));
  inner_.Answer(0);
  inner_.Answer(2);
  EXPECT_EQ(call_.status(), absl::UnavailableError("full"));
  EXPECT_EQ(inner_.num_arrivals(), 3u);
}

TEST_F(SplittingConnectionTest, ANegativePushbackIsTheEnd) {
  Use(SmallChunks(1));
  Start();
  inner_.Answer(0, PushedBack(absl::Milliseconds(-1)));
  EXPECT_EQ(call_.status(), absl::UnavailableError("full"));
}

TEST_F(SplittingConnectionTest, AChunkThatIsTooLargeComesBackSmaller) {
  Start();
  const size_t size = inner_.arrival(0).inputs[0].size();
  inner_.Answer(0, ResultOf(absl::ResourceExhaustedError("too large")));
  EXPECT_LE(inner_.arrival(3).inputs[0].size(), size / 2);
  AnswerRest(1);
  EXPECT_TRUE(call_.IsRight());
}

TEST_F(SplittingConnectionTest, ALargeMessageThatIsRefusedIsSplit) {
  Options options = SmallChunks(3);
  options.max_message_bytes = 1 << 20;
  Use(options);
  Start();
  ASSERT_EQ(inner_.num_arrivals(), 1u);
  EXPECT_EQ(inner_.arrival(0).inference, &call_.inference());
  inner_.Answer(0, ResultOf(absl::ResourceExhaustedError("too large")));
  EXPECT_EQ(inner_.num_arrivals(), 4u);
  AnswerRest(1);
  EXPECT_TRUE(call_.IsRight());
  EXPECT_EQ(call_.Wait().statistics.num_messages, 6) << "the refused one, and five chunks";
}

TEST_F(SplittingConnectionTest, AMessageMayBeAsLargeAsTheOptionSays) {
  Options options = SmallChunks(3);
  options.max_message_bytes = LargestMessageBytes(call_.inference());
  Use(options);
  Start();
  EXPECT_EQ(inner_.num_arrivals(), 1u);
  inner_.Answer(0);
  --options.max_message_bytes;
  Use(options);
  TestCall larger({5, 1900}, 2);
  larger.Start(*connection_);
  EXPECT_EQ(inner_.num_arrivals(), 4u);
  for (size_t i = 1; !larger.HasEnded(); ++i) inner_.Answer(i);
  EXPECT_TRUE(call_.IsRight() && larger.IsRight());
}

TEST_F(SplittingConnectionTest, ALargeMessageThatFailsOtherwiseIsNotSplit) {
  Options options = SmallChunks(3);
  options.max_message_bytes = 1 << 20;
  Use(options);
  Start();
  inner_.Answer(0, ResultOf(absl::InvalidArgumentError("bad")));
  EXPECT_EQ(call_.status(), absl::InvalidArgumentError("bad"));
  EXPECT_EQ(inner_.num_arrivals(), 1u);
}

std::string WhatOf(const std::exception_ptr& exception) {
  try {
    std::rethrow_exception(exception);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
}

TEST_F(SplittingConnectionTest, AnExceptionOfOnChunkEndsTheOperation) {
  call_.options.on_chunk = [](int64_t num_done, int64_t) {
    if (num_done > 1) throw std::runtime_error(absl::StrCat("done: ", num_done));
  };
  Start();
  inner_.Answer(0);
  ASSERT_EQ(inner_.num_arrivals(), 4u);
  inner_.Answer(2);
  EXPECT_EQ(inner_.num_arrivals(), 4u);
  inner_.Answer(1);
  EXPECT_FALSE(call_.HasEnded());
  inner_.Answer(3);
  EXPECT_EQ(call_.status(), absl::AbortedError("on_chunk threw an exception"));
  ASSERT_NE(call_.Wait().exception, nullptr);
  EXPECT_EQ(WhatOf(call_.Wait().exception), "done: 2") << "the first of three";
  EXPECT_EQ(inner_.num_arrivals(), 4u);
}

TEST_F(SplittingConnectionTest, AnExceptionEndsTheOperationBeforeAPushbackIsOver) {
  call_.options.on_chunk = [](int64_t num_done, int64_t) {
    if (num_done == 2) throw std::runtime_error("on_chunk");
  };
  call_.timeout = absl::Hours(3);
  Start();
  inner_.Answer(0, PushedBack(absl::Hours(1)));
  inner_.Answer(1);
  EXPECT_FALSE(call_.HasEnded());
  inner_.Answer(2);
  EXPECT_EQ(call_.status(), absl::AbortedError("on_chunk threw an exception"));
}

TEST_F(SplittingConnectionTest, RowsOfAnMlpStayWhole) {
  TestCall mlp({20, 700}, 1, /*num_inputs=*/1);
  mlp.Start(*connection_);
  for (size_t i = 0; !mlp.HasEnded(); ++i) {
    EXPECT_THAT(inner_.arrival(i).shape, ElementsAre(5, 700));
    CallResult result = ResultOf(absl::OkStatus());
    result.weights_sha256 = "w";
    inner_.Answer(i, result);
  }
  EXPECT_EQ(mlp.status(), absl::OkStatus());
  EXPECT_EQ(mlp.Wait().weights_sha256, "w");
  EXPECT_TRUE(mlp.IsRight());
  EXPECT_EQ(inner_.num_arrivals(), 4u);
}

// It is larger than a chunk.
TEST_F(SplittingConnectionTest, ARowMayBeAsLargeAsAMessage) {
  TestCall mlp({3, 1500}, 1, /*num_inputs=*/1), larger({3, 1500}, 1, /*num_inputs=*/1);
  Options options;
  options.num_connections = 1;
  options.chunk_bytes = 2048;
  options.max_message_bytes = LargestMessageBytes(mlp.inference().Part(0, 1500));
  Use(options);
  mlp.Start(*connection_);
  for (size_t i = 0; !mlp.HasEnded(); ++i) {
    EXPECT_THAT(inner_.arrival(i).shape, ElementsAre(1, 1500));
    inner_.Answer(i);
  }
  EXPECT_EQ(inner_.num_arrivals(), 3u);
  EXPECT_TRUE(mlp.IsRight());
  --options.max_message_bytes;
  Use(options);
  larger.Start(*connection_);
  EXPECT_EQ(larger.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(inner_.num_arrivals(), 3u);
}

TEST_F(SplittingConnectionTest, WeightsThatChangeAreAnError) {
  TestCall mlp({20, 700}, 1, /*num_inputs=*/1);
  mlp.Start(*connection_);
  for (size_t i = 0; !mlp.HasEnded(); ++i) {
    CallResult result = ResultOf(absl::OkStatus());
    result.weights_sha256 = i == 1 ? "other" : "w";
    inner_.Answer(i, result);
  }
  EXPECT_EQ(mlp.status().code(), absl::StatusCode::kAborted);
}

TEST_F(SplittingConnectionTest, WeightsThatChangeEndTheOperationBeforeAPushbackIsOver) {
  TestCall mlp({20, 700}, 1, /*num_inputs=*/1);
  mlp.timeout = absl::Hours(3);
  mlp.Start(*connection_);
  inner_.Answer(0, PushedBack(absl::Hours(1)));
  for (const size_t i : {1, 2}) {
    CallResult result = ResultOf(absl::OkStatus());
    result.weights_sha256 = i == 1 ? "w" : "other";
    inner_.Answer(i, result);
  }
  EXPECT_EQ(mlp.status().code(), absl::StatusCode::kAborted);
}

// Its message is larger than any chunk, because of its many dimensions.
TEST_F(SplittingConnectionTest, WhatIsAllInRegionsIsNotSplit) {
  Shape shape(5000, 1);
  shape.back() = 2;
  TestCall call(shape, 1);
  const RegionPart part{"region", 4, 0, 4};
  for (auto& input : call.inference().inputs) input.part = part;
  for (auto& output : call.inference().outputs) output.part = part;
  ASSERT_GT(LargestMessageBytes(call.inference()), kSmallChunk);
  call.Start(*connection_);
  ASSERT_EQ(inner_.num_arrivals(), 1u);
  EXPECT_EQ(inner_.arrival(0).inference, &call.inference());
  inner_.Answer(0, ResultOf(absl::AbortedError("as it was")));
  EXPECT_EQ(call.status(), absl::AbortedError("as it was"));
}

TEST_F(SplittingConnectionTest, GradientsOfWeightsAreNeverSplit) {
  TestCall mlp({20, 700}, 1, /*num_inputs=*/1);
  mlp.inference().outputs[0].gradient_shape = Shape{10, 700};
  mlp.Start(*connection_);
  EXPECT_EQ(mlp.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(inner_.num_arrivals(), 0u);
}

// ---- Chunks on many threads ----

// Answers chunks on threads of its own, in any order: with success, with a pushback, or, if they
// have more bytes than it takes, as too large.
class MoodyServer {
 public:
  static constexpr size_t kMaxTensorBytes = 3000;

  explicit MoodyServer(uint32_t seed)
      : connection_([this](size_t number) {
          absl::MutexLock lock(&mutex_);
          waiting_.push_back(number);
        }) {
    for (uint32_t i = 0; i < 3; ++i) threads_.emplace_back([this, seed, i] { Serve(seed + i); });
  }
  ~MoodyServer() {
    {
      absl::MutexLock lock(&mutex_);
      is_ending_ = true;
    }
    for (std::thread& thread : threads_) thread.join();
  }

  Connection* connection() { return &connection_; }

 private:
  void Serve(uint32_t seed) {
    std::minstd_rand random(seed);
    while (true) {
      size_t number = 0;
      {
        absl::MutexLock lock(&mutex_);
        const auto has_work = [this] {
          mutex_.AssertHeld();
          return is_ending_ || !waiting_.empty();
        };
        mutex_.Await(absl::Condition(&has_work));
        if (waiting_.empty()) return;
        std::swap(waiting_[random() % waiting_.size()], waiting_.back());
        number = waiting_.back();
        waiting_.pop_back();
      }
      const Arrival chunk = connection_.arrival(number);
      if (chunk.inputs[0].size() > kMaxTensorBytes) {
        connection_.Answer(number, ResultOf(absl::ResourceExhaustedError("too large")));
      } else if (chunk.context.cancellation->is_cancelled()) {
        connection_.Answer(number, ResultOf(absl::CancelledError("chunk")));
      } else if (random() % 5 == 0) {
        connection_.Answer(number, PushedBack(absl::Microseconds(random() % 500)));
      } else {
        connection_.Answer(number, ResultOf(absl::OkStatus()));
      }
    }
  }

  absl::Mutex mutex_;
  std::vector<size_t> waiting_ ABSL_GUARDED_BY(mutex_);
  bool is_ending_ ABSL_GUARDED_BY(mutex_) = false;
  FakeConnection connection_;
  std::vector<std::thread> threads_;
};

TEST(SplittingPropertyTest, AnOperationIsRightOrCancelled) {
  FakeChoice servers;
  EventThreads threads(2, [] {});
  MoodyServer server(1);
  SplittingConnection connection(server.connection(), SmallChunks(4), 1, &servers, &threads);
  for (uint32_t i = 0; i < 12; ++i) {
    TestCall call({20 + i, 2000}, i);
    std::atomic<int64_t> num_reported = 0;
    call.options.on_chunk = [&](int64_t, int64_t) { ++num_reported; };
    call.Start(connection);
    const bool is_cancelled = i % 3 == 2;
    if (is_cancelled) {
      call.cancellation().Cancel();
      // On a busy machine it may have ended before.
      EXPECT_TRUE(absl::IsCancelled(call.status()) || call.IsRight());
    } else {
      EXPECT_EQ(call.status(), absl::OkStatus());
      EXPECT_TRUE(call.IsRight());
      EXPECT_GT(num_reported, 20 * 4000 / static_cast<int64_t>(MoodyServer::kMaxTensorBytes));
    }
  }
  threads.Stop();
}

}  // namespace
}  // namespace swiglu::client
