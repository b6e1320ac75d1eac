// SPDX-License-Identifier: Apache-2.0
//
// Which calls are joined, what their message has, and what each of them makes of its end. The test
// stands for the server, and answers on its own thread. So, unless a deadline is the subject,
// nothing here depends on time.
#include "client/coalescing_connection.h"

#include <atomic>
#include <functional>
#include <memory>
#include <ostream>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/event_queue.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/fake_connection.h"

namespace swiglu::client {
namespace {

using ::testing::ElementsAre;

constexpr int64_t kMaxCallBytes = 1000;

CoalescingOptions OneAway() {
  CoalescingOptions options;
  options.max_call_bytes = kMaxCallBytes;
  options.overdue = absl::InfiniteDuration();
  options.servers = "SERVERS";
  return options;
}

std::unique_ptr<TestCall> NewCall(uint32_t seed, absl::Duration timeout = absl::Minutes(1)) {
  auto call = std::make_unique<TestCall>(Shape{2, 2 + seed % 5}, seed);
  call->timeout = timeout;
  return call;
}

class CoalescingConnectionTest : public ::testing::Test {
 protected:
  ~CoalescingConnectionTest() override { threads_.Stop(); }

  void Use(const CoalescingOptions& options) {
    connection_ = std::make_unique<CoalescingConnection>(&inner_, options, &threads_);
  }

  void Start(TestCall& call) { call.Start(*connection_); }

  // Starts a call that leaves alone, so that those of `calls` gather.
  void Gather(const std::vector<std::unique_ptr<TestCall>>& calls) {
    first_ = inner_.num_arrivals();
    leader_ = NewCall(99);
    Start(*leader_);
    ASSERT_EQ(inner_.num_arrivals(), first_ + 1);
    for (const auto& call : calls) Start(*call);
    ASSERT_EQ(inner_.num_arrivals(), first_ + 1);
  }

  // Lets the message of the calls that gathered leave. Returns its number.
  size_t Release() {
    inner_.Answer(first_, ResultOf(absl::OkStatus()));
    EXPECT_TRUE(leader_->IsRight());
    return first_ + 1;
  }

  FakeConnection inner_;
  EventThreads threads_{2, [] {}};
  std::unique_ptr<CoalescingConnection> connection_ =
      std::make_unique<CoalescingConnection>(&inner_, OneAway(), &threads_);
  std::unique_ptr<TestCall> leader_;
  size_t first_ = 0;
};

std::vector<std::unique_ptr<TestCall>> NewCalls(int count) {
  std::vector<std::unique_ptr<TestCall>> calls;
  for (int i = 0; i < count; ++i) calls.push_back(NewCall(static_cast<uint32_t>(i)));
  return calls;
}

std::string JoinedInput(const std::vector<std::unique_ptr<TestCall>>& calls, size_t k) {
  std::string bytes;
  for (const auto& call : calls) bytes += call->input(k);
  return bytes;
}

// ---- What leaves, and when ----

TEST_F(CoalescingConnectionTest, ACallAloneLeavesAtOnceAndUnchanged) {
  TestCall call({3, 4}, 1);
  call.options.statistics = nullptr;
  Start(call);
  ASSERT_EQ(inner_.num_arrivals(), 1u);
  const Arrival arrival = inner_.arrival(0);
  EXPECT_EQ(arrival.inference, &call.inference());
  EXPECT_EQ(arrival.context.options, &call.options);
  EXPECT_EQ(arrival.context.cancellation, &call.cancellation());
  inner_.Answer(0, ResultOf(absl::OkStatus()));
  EXPECT_EQ(call.status(), absl::OkStatus());
  EXPECT_TRUE(call.IsRight());
  EXPECT_EQ(call.Wait().statistics.num_joined, 1);
}

TEST_F(CoalescingConnectionTest, CallsOneAfterTheOtherAreNotJoined) {
  for (size_t i = 0; i < 3; ++i) {
    TestCall call({3, 4}, 1);
    Start(call);
    EXPECT_EQ(inner_.arrival(i).inference, &call.inference());
    inner_.Answer(i);
    EXPECT_TRUE(call.IsRight());
  }
}

TEST_F(CoalescingConnectionTest, CallsThatComeMeanwhileLeaveTogether) {
  const auto calls = NewCalls(5);
  Gather(calls);
  const size_t message = Release();
  ASSERT_EQ(inner_.num_arrivals(), message + 1);
  const Arrival arrival = inner_.arrival(message);
  EXPECT_EQ(arrival.model, calls[0]->inference().model);
  EXPECT_THAT(arrival.shape, ElementsAre(2 * (2 + 3 + 4 + 5 + 6)));
  EXPECT_THAT(arrival.inputs, ElementsAre(JoinedInput(calls, 0), JoinedInput(calls, 1)));
  EXPECT_EQ(arrival.inference->inputs[0].name, "e");
  EXPECT_EQ(arrival.inference->outputs[0].name, "h");
  EXPECT_EQ(arrival.inference->row_elements, 0);
  EXPECT_EQ(arrival.context.cancellation, nullptr);
  EXPECT_NE(arrival.context.queue, nullptr);
  for (const auto& call : calls) EXPECT_FALSE(call->HasEnded());
  inner_.Answer(message, ResultOf(absl::OkStatus()));
  for (const auto& call : calls) {
    EXPECT_EQ(call->status(), absl::OkStatus());
    EXPECT_TRUE(call->IsRight());
  }
}

TEST_F(CoalescingConnectionTest, EachOutputOfBackwardGetsItsPlace) {
  std::vector<std::unique_ptr<TestCall>> calls;
  TestCall leader({1}, 0, /*num_inputs=*/3);
  Start(leader);
  for (uint32_t i = 1; i < 5; ++i) {
    calls.push_back(std::make_unique<TestCall>(Shape{2, i}, i, /*num_inputs=*/3));
    Start(*calls.back());
  }
  inner_.Answer(0);
  const Arrival arrival = inner_.arrival(1);
  EXPECT_EQ(arrival.inputs, (std::vector<std::string>{JoinedInput(calls, 0), JoinedInput(calls, 1),
                                                      JoinedInput(calls, 2)}));
  inner_.Answer(1);
  for (const auto& call : calls) EXPECT_TRUE(call->IsRight());
}

TEST_F(CoalescingConnectionTest, AMessageIsUsedAgain) {
  for (int round = 0; round < 3; ++round) {
    const auto calls = NewCalls(2 + round % 2);
    Gather(calls);
    const size_t message = Release();
    EXPECT_THAT(inner_.arrival(message).inputs,
                ElementsAre(JoinedInput(calls, 0), JoinedInput(calls, 1)));
    inner_.Answer(message);
    for (const auto& call : calls) EXPECT_TRUE(call->IsRight());
  }
}

TEST_F(CoalescingConnectionTest, TheNextMessageLeavesWhenOneComesBack) {
  const auto calls = NewCalls(2), more = NewCalls(3);
  Gather(calls);
  const size_t message = Release();
  for (const auto& call : more) Start(*call);
  EXPECT_EQ(inner_.num_arrivals(), message + 1);
  inner_.Answer(message);
  ASSERT_EQ(inner_.num_arrivals(), message + 2);
  EXPECT_EQ(inner_.arrival(message + 1).inputs[0], JoinedInput(more, 0));
  inner_.Answer(message + 1);
  for (const auto& call : more) EXPECT_TRUE(call->IsRight());
}

TEST_F(CoalescingConnectionTest, AsManyAsAllowedAreAway) {
  CoalescingOptions options = OneAway();
  options.max_away = 3;
  Use(options);
  const auto calls = NewCalls(5);
  for (const auto& call : calls) Start(*call);
  ASSERT_EQ(inner_.num_arrivals(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(inner_.arrival(i).inference, &calls[i]->inference());
  }
  inner_.Answer(1);
  ASSERT_EQ(inner_.num_arrivals(), 4u);
  EXPECT_EQ(inner_.arrival(3).inputs[0], calls[3]->input(0) + calls[4]->input(0));
  inner_.Answer(3);
  inner_.Answer(0);
  inner_.Answer(2);
  for (const auto& call : calls) EXPECT_TRUE(call->IsRight());
}

TEST_F(CoalescingConnectionTest, EachOperationAndDtypeGoesOnItsOwn) {
  std::vector<std::unique_ptr<TestCall>> calls;
  for (const size_t num_inputs : {2, 3}) {
    for (const Dtype dtype : {Dtype::kFp16, Dtype::kBf16, Dtype::kFp32}) {
      calls.push_back(std::make_unique<TestCall>(Shape{4}, 1, num_inputs, dtype));
      Start(*calls.back());
    }
  }
  ASSERT_EQ(inner_.num_arrivals(), 6u);
  for (size_t i = 0; i < 6; ++i) inner_.Answer(i);
  for (const auto& call : calls) EXPECT_TRUE(call->IsRight());
}

TEST_F(CoalescingConnectionTest, AMessageHasSoManyCallsAtMost) {
  CoalescingOptions options = OneAway();
  options.max_message_calls = 3;
  Use(options);
  const auto calls = NewCalls(7);
  Gather(calls);
  const size_t message = Release();
  for (size_t i = 0; i < 3; ++i) {
    ASSERT_EQ(inner_.num_arrivals(), message + i + 1);
    inner_.Answer(message + i);
  }
  EXPECT_EQ(inner_.num_arrivals(), message + 3);
  EXPECT_EQ(inner_.arrival(message + 2).inputs[0], calls[6]->input(0));
  for (const auto& call : calls) EXPECT_TRUE(call->IsRight());
}

// Calls of 16 to 48 bytes of inputs.
TEST_F(CoalescingConnectionTest, AMessageHasSoManyBytesAtMost) {
  CoalescingOptions options = OneAway();
  options.max_message_bytes = 16 + 24 + 32;
  Use(options);
  const auto calls = NewCalls(5);
  Gather(calls);
  const size_t message = Release();
  EXPECT_THAT(inner_.arrival(message).shape, ElementsAre((16 + 24 + 32) / 2 / 2));
  inner_.Answer(message);
  EXPECT_EQ(inner_.arrival(message + 1).inputs[0], calls[3]->input(0));
  inner_.Answer(message + 1);
  inner_.Answer(message + 2);
  for (const auto& call : calls) EXPECT_TRUE(call->IsRight());
}

TEST_F(CoalescingConnectionTest, ACallLargerThanAMessageStillLeaves) {
  CoalescingOptions options = OneAway();
  options.max_message_bytes = 1;
  Use(options);
  const auto calls = NewCalls(2);
  Gather(calls);
  const size_t message = Release();
  inner_.Answer(message);
  inner_.Answer(message + 1);
  for (const auto& call : calls) EXPECT_TRUE(call->IsRight());
}

CoalescingOptions TwoFullAway() {
  CoalescingOptions options = OneAway();
  options.max_full_away = 2;
  options.full_bytes = 64;
  return options;
}

// Calls of 16, 24, 32, 40 and 48 bytes of inputs.
TEST_F(CoalescingConnectionTest, AFullMessageDoesNotWait) {
  Use(TwoFullAway());
  const auto calls = NewCalls(3), more = NewCalls(5);
  TestCall leader({4}, 99);
  Start(leader);
  Start(*calls[0]);
  Start(*calls[1]);
  EXPECT_EQ(inner_.num_arrivals(), 1u);
  Start(*calls[2]);
  ASSERT_EQ(inner_.num_arrivals(), 2u);
  EXPECT_EQ(inner_.arrival(1).inputs[0], JoinedInput(calls, 0));
  for (const auto& call : more) Start(*call);
  EXPECT_EQ(inner_.num_arrivals(), 2u) << "as many full messages as may be are away";
  inner_.Answer(0);
  ASSERT_EQ(inner_.num_arrivals(), 3u);
  EXPECT_EQ(inner_.arrival(2).inputs[0], JoinedInput(more, 0));
  inner_.Answer(1);
  inner_.Answer(2);
  for (const auto& call : calls) EXPECT_TRUE(call->IsRight());
  for (const auto& call : more) EXPECT_TRUE(call->IsRight());
}

TEST_F(CoalescingConnectionTest, WhatIsCancelledDoesNotLeaveWithAFullMessage) {
  Use(TwoFullAway());
  auto calls = NewCalls(5);
  TestCall leader({4}, 99);
  Start(leader);
  Start(*calls[0]);
  Start(*calls[3]);
  calls[0]->cancellation().Cancel();
  Start(*calls[4]);
  ASSERT_EQ(inner_.num_arrivals(), 2u);
  EXPECT_EQ(inner_.arrival(1).inputs[0], calls[3]->input(0) + calls[4]->input(0));
  inner_.Answer(1);
  inner_.Answer(0);
  EXPECT_EQ(calls[0]->status(), absl::CancelledError("the call was cancelled"));
  EXPECT_TRUE(calls[3]->IsRight() && calls[4]->IsRight());
}

TEST_F(CoalescingConnectionTest, AnOverdueMessageDoesNotHoldTheOthers) {
  CoalescingOptions options = OneAway();
  options.overdue = absl::Milliseconds(20);
  Use(options);
  const auto calls = NewCalls(3);
  // On a busy machine the first is overdue before the others come.
  for (const auto& call : calls) Start(*call);
  inner_.WaitForArrivals(2);
  EXPECT_FALSE(calls[0]->HasEnded());
  inner_.Answer(1);
  EXPECT_TRUE(calls[1]->status().ok());
  for (size_t i = 2; i < inner_.num_arrivals(); ++i) inner_.Answer(i);
  EXPECT_TRUE(calls[2]->IsRight());
  EXPECT_FALSE(calls[0]->HasEnded());
  inner_.Answer(0);
  EXPECT_TRUE(calls[0]->IsRight());
}

// ---- What is not joined ----

struct Lonely {
  const char* name;
  std::function<void(TestCall&)> make;
};

void PrintTo(const Lonely& lonely, std::ostream* out) { *out << lonely.name; }

const RegionPart kWholeRegion{"region", 64, 0, 64};

const Lonely kLonelyCalls[] = {
    {"RequestId", [](TestCall& call) { call.options.request_id = "x"; }},
    {"Traceparent", [](TestCall& call) { call.options.traceparent = "x"; }},
    {"Priority", [](TestCall& call) { call.options.priority = 1; }},
    {"Chunk", [](TestCall& call) { call.return_pushback = true; }},
    {"Mlp", [](TestCall& call) { call.inference().row_elements = 4; }},
    {"InputInARegion", [](TestCall& call) { call.inference().inputs[1].part = kWholeRegion; }},
    {"OutputInARegion", [](TestCall& call) { call.inference().outputs[0].part = kWholeRegion; }},
    {"NoElements",
     [](TestCall& call) {
       call.inference().shape = {0};
       for (auto& input : call.inference().inputs) input.bytes = {};
       for (auto& output : call.inference().outputs) output.bytes = {};
     }},
    {"NoTime", [](TestCall& call) { call.timeout = absl::ZeroDuration(); }},
    {"Cancelled", [](TestCall& call) { call.cancellation().Cancel(); }},
};

class LonelyCallTest : public CoalescingConnectionTest,
                       public ::testing::WithParamInterface<Lonely> {};

TEST_P(LonelyCallTest, LeavesAtOnceAndUnchanged) {
  const auto calls = NewCalls(1);
  Gather(calls);
  TestCall call({8, 4}, 1);
  GetParam().make(call);
  Start(call);
  ASSERT_EQ(inner_.num_arrivals(), first_ + 2);
  EXPECT_EQ(inner_.arrival(first_ + 1).inference, &call.inference());
  inner_.Answer(first_ + 1, ResultOf(absl::AbortedError("as it was")));
  EXPECT_EQ(call.status(), absl::AbortedError("as it was"));
  Release();
  inner_.Answer(first_ + 2);
  EXPECT_TRUE(calls[0]->IsRight());
}

INSTANTIATE_TEST_SUITE_P(CoalescingConnectionTest, LonelyCallTest,
                         ::testing::ValuesIn(kLonelyCalls),
                         [](const auto& lonely) { return std::string(lonely.param.name); });

TEST_F(CoalescingConnectionTest, OnlySmallCallsAreJoined) {
  const auto calls = NewCalls(1);
  Gather(calls);
  TestCall largest({kMaxCallBytes / 4}, 1), too_large({kMaxCallBytes / 4 + 1}, 1);
  Start(largest);
  EXPECT_EQ(inner_.num_arrivals(), first_ + 1);
  Start(too_large);
  EXPECT_EQ(inner_.num_arrivals(), first_ + 2);
  inner_.Answer(first_ + 1);
  EXPECT_TRUE(too_large.IsRight());
  Release();
  inner_.Answer(first_ + 2);
  EXPECT_TRUE(largest.IsRight());
  EXPECT_TRUE(calls[0]->IsRight());
}

TEST_F(CoalescingConnectionTest, WithoutRoomForCallsNoneIsJoined) {
  CoalescingOptions options = OneAway();
  options.max_call_bytes = 0;
  Use(options);
  const auto calls = NewCalls(3);
  for (const auto& call : calls) Start(*call);
  ASSERT_EQ(inner_.num_arrivals(), 3u);
  for (size_t i = 0; i < 3; ++i) inner_.Answer(i);
  for (const auto& call : calls) EXPECT_TRUE(call->IsRight());
}

// ---- Time, cancellation ----

TEST_F(CoalescingConnectionTest, AMessageHasTheLatestDeadlineOfItsCalls) {
  const auto calls = NewCalls(3);
  calls[0]->timeout = absl::Minutes(2);
  calls[1]->timeout = absl::Minutes(4);
  calls[2]->timeout = absl::Minutes(3);
  Gather(calls);
  const size_t message = Release();
  EXPECT_EQ(inner_.arrival(message).context.limit.timeout, absl::Minutes(4));
  inner_.Answer(message);
  for (const auto& call : calls) EXPECT_TRUE(call->IsRight());
}

// Every subset of calls that gather, as bits.
class SubsetTest : public CoalescingConnectionTest, public ::testing::WithParamInterface<unsigned> {
 protected:
  static constexpr int kNumCalls = 4;

  static bool IsChosen(size_t i) { return (GetParam() >> i & 1) != 0; }
  // Splits `calls` into those that are chosen and the others.
  static std::vector<std::unique_ptr<TestCall>> TakeChosen(
      std::vector<std::unique_ptr<TestCall>>* calls) {
    std::vector<std::unique_ptr<TestCall>> chosen, rest;
    for (size_t i = 0; i < calls->size(); ++i) {
      (IsChosen(i) ? chosen : rest).push_back(std::move((*calls)[i]));
    }
    *calls = std::move(rest);
    return chosen;
  }

  // Expects that `calls`, and no others, are in the message, and that they succeed.
  void ExpectMessageOf(const std::vector<std::unique_ptr<TestCall>>& calls, size_t message) {
    ASSERT_EQ(inner_.num_arrivals(), message + (calls.empty() ? 0 : 1));
    if (calls.empty()) return;
    EXPECT_EQ(inner_.arrival(message).inputs[0], JoinedInput(calls, 0));
    inner_.Answer(message, ResultOf(absl::OkStatus()));
    for (const auto& call : calls) {
      EXPECT_EQ(call->status(), absl::OkStatus());
      EXPECT_TRUE(call->IsRight());
      EXPECT_EQ(call->Wait().statistics.num_joined, static_cast<int64_t>(calls.size()));
    }
  }
};

TEST_P(SubsetTest, WhatIsCancelledBeforeItLeavesIsNotSent) {
  auto calls = NewCalls(kNumCalls);
  Gather(calls);
  auto cancelled = TakeChosen(&calls);
  for (const auto& call : cancelled) call->cancellation().Cancel();
  const size_t message = Release();
  for (auto& call : cancelled) {
    EXPECT_EQ(call->status(), absl::CancelledError("the call was cancelled"));
    call.reset();
  }
  ExpectMessageOf(calls, message);
}

TEST_P(SubsetTest, WhatIsCancelledWhileNothingComesBackEndsSoon) {
  auto calls = NewCalls(kNumCalls);
  Gather(calls);
  auto cancelled = TakeChosen(&calls);
  for (const auto& call : cancelled) call->cancellation().Cancel();
  for (auto& call : cancelled) {
    EXPECT_EQ(call->status(), absl::CancelledError("the call was cancelled"));
    call.reset();
  }
  ExpectMessageOf(calls, Release());
}

TEST_P(SubsetTest, WhatIsLateBeforeItLeavesIsNotSent) {
  auto calls = NewCalls(kNumCalls);
  for (size_t i = 0; i < calls.size(); ++i) {
    if (IsChosen(i)) calls[i]->timeout = absl::Milliseconds(20);
  }
  Gather(calls);
  auto late = TakeChosen(&calls);
  for (auto& call : late) {
    EXPECT_EQ(call->status(), absl::DeadlineExceededError("no answer from SERVERS within 20ms"));
    call.reset();
  }
  ExpectMessageOf(calls, Release());
}

// On a busy machine such a call may be late before its message leaves.
TEST_P(SubsetTest, WhatIsLateWhileItsMessageIsAwayLeavesTheOthersAlone) {
  auto calls = NewCalls(kNumCalls);
  for (size_t i = 0; i < calls.size(); ++i) {
    if (IsChosen(i)) calls[i]->timeout = absl::Milliseconds(20);
  }
  Gather(calls);
  const size_t message = Release();
  auto late = TakeChosen(&calls);
  for (auto& call : late) {
    EXPECT_EQ(call->status(), absl::DeadlineExceededError("no answer from SERVERS within 20ms"));
    call.reset();
  }
  for (const auto& call : calls) EXPECT_FALSE(call->HasEnded());
  if (inner_.num_arrivals() == message) return;
  // The message needs nothing of the calls that are gone.
  const Arrival arrival = inner_.arrival(message);
  EXPECT_EQ(arrival.inference->model, "swiglu_forward_FP16");
  EXPECT_EQ(arrival.inference->inputs[0].name, "e");
  EXPECT_EQ(arrival.context.options->statistics, nullptr);
  inner_.Answer(message, ResultOf(absl::OkStatus()));
  for (const auto& call : calls) EXPECT_TRUE(call->status().ok() && call->IsRight());
}

TEST_P(SubsetTest, WhatIsLateIsNotSentAloneWhenItsMessageIsRefused) {
  auto calls = NewCalls(kNumCalls);
  for (size_t i = 0; i < calls.size(); ++i) {
    if (IsChosen(i)) calls[i]->timeout = absl::Milliseconds(20);
  }
  Gather(calls);
  const size_t message = Release();
  auto late = TakeChosen(&calls);
  for (auto& call : late) {
    call->Wait();
    call.reset();
  }
  if (inner_.num_arrivals() == message) return;
  inner_.Answer(message, ResultOf(absl::ResourceExhaustedError("too large")));
  ASSERT_EQ(inner_.num_arrivals(), message + 1 + calls.size());
  for (size_t i = 0; i < calls.size(); ++i) {
    EXPECT_EQ(inner_.arrival(message + 1 + i).inference, &calls[i]->inference());
    inner_.Answer(message + 1 + i);
    EXPECT_TRUE(calls[i]->IsRight());
  }
}

// The message is sent, so these calls have its result.
TEST_P(SubsetTest, WhatIsCancelledWhileItsMessageIsAwayHasItsResult) {
  auto calls = NewCalls(kNumCalls);
  Gather(calls);
  const size_t message = Release();
  for (size_t i = 0; i < calls.size(); ++i) {
    if (IsChosen(i)) calls[i]->cancellation().Cancel();
  }
  ExpectMessageOf(calls, message);
}

INSTANTIATE_TEST_SUITE_P(CoalescingConnectionTest, SubsetTest, ::testing::Range(0u, 16u));

// ---- Errors of a message ----

class MessageErrorTest : public CoalescingConnectionTest,
                         public ::testing::WithParamInterface<int> {
 protected:
  static absl::Status Error(absl::string_view message) {
    return absl::Status(static_cast<absl::StatusCode>(GetParam()), message);
  }
};

TEST_P(MessageErrorTest, IsThatOfEachCallOrSendsEachAlone) {
  const auto calls = NewCalls(3);
  Gather(calls);
  const size_t message = Release();
  CallResult refused = ResultOf(Error("of all"));
  refused.statistics.server = "SERVER";
  inner_.Answer(message, refused);
  const bool is_about_one = Error("").code() == absl::StatusCode::kInvalidArgument ||
                            Error("").code() == absl::StatusCode::kResourceExhausted;
  ASSERT_EQ(inner_.num_arrivals(), message + 1 + (is_about_one ? 3 : 0));
  if (!is_about_one) {
    for (const auto& call : calls) {
      const bool is_late = absl::IsDeadlineExceeded(Error(""));
      EXPECT_EQ(call->status(), Error(is_late ? "no answer from SERVERS within 1m" : "of all"));
      EXPECT_EQ(call->Wait().statistics.num_joined, 3);
      EXPECT_EQ(call->Wait().statistics.server, "SERVER");
    }
    return;
  }
  for (size_t i = 0; i < 3; ++i) {
    const Arrival alone = inner_.arrival(message + 1 + i);
    EXPECT_EQ(alone.inference, &calls[i]->inference());
    EXPECT_EQ(alone.context.options, &calls[i]->options);
    EXPECT_EQ(alone.context.cancellation, &calls[i]->cancellation());
    EXPECT_EQ(alone.context.limit.timeout, calls[i]->timeout);
    EXPECT_FALSE(calls[i]->HasEnded());
  }
  inner_.Answer(message + 1, ResultOf(absl::OkStatus()));
  inner_.Answer(message + 2, ResultOf(Error("of one")));
  inner_.Answer(message + 3, ResultOf(absl::UnavailableError("of one")));
  EXPECT_EQ(inner_.num_arrivals(), message + 4) << "each is sent alone once";
  EXPECT_TRUE(calls[0]->status().ok() && calls[0]->IsRight());
  EXPECT_EQ(calls[0]->Wait().statistics.num_messages, 2);
  EXPECT_EQ(calls[0]->Wait().statistics.num_joined, 1);
  EXPECT_EQ(calls[1]->status(), Error("of one"));
  EXPECT_EQ(calls[2]->status(), absl::UnavailableError("of one"));
}

// A server that is full takes none of the calls alone, either.
TEST_P(MessageErrorTest, WithAPushbackIsThatOfEachCall) {
  const auto calls = NewCalls(2);
  Gather(calls);
  const size_t message = Release();
  CallResult full = ResultOf(Error("of all"));
  full.pushback = absl::Seconds(1);
  inner_.Answer(message, full);
  EXPECT_EQ(inner_.num_arrivals(), message + 1);
  for (const auto& call : calls) {
    EXPECT_EQ(call->status().code(), Error("").code());
    EXPECT_EQ(call->Wait().pushback, absl::Seconds(1));
  }
}

TEST_P(MessageErrorTest, LetsTheNextMessageLeave) {
  const auto calls = NewCalls(1), more = NewCalls(2);
  Gather(calls);
  const size_t message = Release();
  for (const auto& call : more) Start(*call);
  inner_.Answer(message, ResultOf(Error("of all")));
  EXPECT_EQ(inner_.arrival(message + 1).inputs[0], JoinedInput(more, 0));
  for (size_t i = message + 1; i < inner_.num_arrivals(); ++i) inner_.Answer(i);
  for (const auto& call : more) EXPECT_TRUE(call->status().ok() && call->IsRight());
  calls[0]->Wait();
}

INSTANTIATE_TEST_SUITE_P(CoalescingConnectionTest, MessageErrorTest, ::testing::Range(1, 17));

// ---- What a call is told ----

TEST_F(CoalescingConnectionTest, EachCallGetsTheStatisticsOfTheMessage) {
  const auto calls = NewCalls(3);
  CallStatistics statistics;
  calls[1]->options.statistics = &statistics;
  Gather(calls);
  const size_t message = Release();
  EXPECT_TRUE(inner_.arrival(message).wants_statistics);
  CallResult result = ResultOf(absl::OkStatus());
  result.statistics.bytes_sent = 500;
  result.statistics.server = "SERVER";
  result.statistics.queue_time = absl::Milliseconds(3);
  inner_.Answer(message, result);
  for (const auto& call : calls) {
    const CallStatistics& told = call->Wait().statistics;
    EXPECT_EQ(told.num_joined, 3);
    EXPECT_EQ(told.num_messages, 1);
    EXPECT_EQ(told.bytes_sent, 500);
    EXPECT_EQ(told.server, "SERVER");
    EXPECT_EQ(told.queue_time, absl::Milliseconds(3));
  }
}

TEST_F(CoalescingConnectionTest, AsksForTheServersTimesOnlyIfACallDoes) {
  CallStatistics statistics;
  for (const bool is_asked : {true, false}) {
    const auto calls = NewCalls(2);
    if (is_asked) calls[0]->options.statistics = &statistics;
    Gather(calls);
    const size_t message = Release();
    EXPECT_EQ(inner_.arrival(message).wants_statistics, is_asked);
    inner_.Answer(message);
  }
}

// ---- Many calls at once ----

// A server whose answer to joined calls follows from its answers to each: it refuses messages
// that have a certain byte, or more bytes than it takes. Answers on threads of its own, in any
// order.
class ElementwiseServer {
 public:
  static constexpr size_t kMaxTensorBytes = 600;
  static constexpr char kBadByte = '\x5b';

  ElementwiseServer()
      : connection_([this](size_t number) {
          absl::MutexLock lock(&mutex_);
          waiting_.push_back(number);
        }) {
    for (uint32_t i = 0; i < 2; ++i) threads_.emplace_back([this, i] { Serve(i); });
  }
  ~ElementwiseServer() {
    {
      absl::MutexLock lock(&mutex_);
      is_ending_ = true;
    }
    for (std::thread& thread : threads_) thread.join();
  }

  Connection* connection() { return &connection_; }

  // The answer to inputs of that content.
  static absl::Status AnswerTo(const std::string& input) {
    if (input.size() > kMaxTensorBytes) return absl::ResourceExhaustedError("too large");
    if (absl::StrContains(input, kBadByte)) return absl::InvalidArgumentError("bad byte");
    return absl::OkStatus();
  }

 private:
  void Serve(uint32_t seed) {
    std::minstd_rand random(seed + 1);
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
        const size_t chosen = random() % waiting_.size();
        std::swap(waiting_[chosen], waiting_.back());
        number = waiting_.back();
        waiting_.pop_back();
      }
      connection_.Answer(number, ResultOf(AnswerTo(connection_.arrival(number).inputs[0])));
    }
  }

  absl::Mutex mutex_;
  std::vector<size_t> waiting_ ABSL_GUARDED_BY(mutex_);
  bool is_ending_ ABSL_GUARDED_BY(mutex_) = false;
  FakeConnection connection_;
  std::vector<std::thread> threads_;
};

TEST(CoalescingPropertyTest, BitsAndErrorsAreThoseOfCallsMadeAlone) {
  constexpr int kNumThreads = 4, kCallsPerThread = 200, kWindow = 16;
  ElementwiseServer server;
  EventThreads threads(2, [] {});
  CoalescingOptions options = OneAway();
  options.max_away = 2;
  options.max_message_calls = 20;
  CoalescingConnection connection(server.connection(), options, &threads);
  std::atomic<int64_t> num_joined = 0;
  const auto call_many = [&](uint32_t seed) {
    std::minstd_rand random(seed);
    std::vector<std::unique_ptr<TestCall>> calls;
    std::vector<bool> is_cancelled;
    const auto end_all = [&] {
      for (size_t i = 0; i < calls.size(); ++i) {
        const absl::Status status = calls[i]->status();
        const absl::Status alone = ElementwiseServer::AnswerTo(calls[i]->input(0));
        if (is_cancelled[i] && absl::IsCancelled(status)) continue;
        EXPECT_EQ(status, alone);
        EXPECT_EQ(calls[i]->IsRight(), status.ok());
        if (calls[i]->Wait().statistics.num_joined > 1) ++num_joined;
      }
      calls.clear();
      is_cancelled.clear();
    };
    for (int i = 0; i < kCallsPerThread; ++i) {
      calls.push_back(std::make_unique<TestCall>(Shape{1 + static_cast<int64_t>(random() % 120)},
                                                 static_cast<uint32_t>(random())));
      // Most calls have even bytes, which are all good.
      for (char& c : calls.back()->mutable_input(0)) c = static_cast<char>(c & ~1);
      if (random() % 10 == 0) calls.back()->mutable_input(0)[0] = ElementwiseServer::kBadByte;
      is_cancelled.push_back(random() % 10 == 0);
      calls.back()->Start(connection);
      if (is_cancelled.back()) calls.back()->cancellation().Cancel();
      if (calls.size() == kWindow) end_all();
    }
    end_all();
  };
  std::vector<std::thread> callers;
  for (uint32_t i = 0; i < kNumThreads; ++i) callers.emplace_back(call_many, i + 1);
  for (std::thread& caller : callers) caller.join();
  EXPECT_GT(num_joined, 0);
  threads.Stop();
}

}  // namespace
}  // namespace swiglu::client
