// SPDX-License-Identifier: Apache-2.0
//
// Joined calls that are late or cancelled, before and after their message has left: what they are
// told, and that it makes no difference to the others.
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tests/client/coalescing_fixture.h"
#include "tests/client/fake_connection.h"

namespace swiglu::client {
namespace {

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

// The later message has no calls any more when those of the earlier one are late.
TEST_F(CoalescingConnectionTest, DeadlinesOfAllMessagesAreChecked) {
  CoalescingOptions options = OneAway();
  options.max_away = 2;
  Use(options);
  const auto leaders = NewCalls(2);
  for (const auto& leader : leaders) Start(*leader);
  const auto late = NewCall(1, /*timeout=*/absl::Milliseconds(50)),
             first_late = NewCall(2, /*timeout=*/absl::Milliseconds(20));
  Start(*late);
  inner_.Answer(0);
  Start(*first_late);
  inner_.Answer(1);
  EXPECT_EQ(first_late->status(),
            absl::DeadlineExceededError("no answer from SERVERS within 20ms"));
  EXPECT_EQ(late->status(), absl::DeadlineExceededError("no answer from SERVERS within 50ms"));
  for (size_t i = 2; i < inner_.num_arrivals(); ++i) inner_.Answer(i);
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

// At least one call is not late, so there is a message. On a busy machine the others may be late
// before it leaves; joined_message_test.cc has lateness without a clock.
class PartTest : public SubsetTest {};

TEST_P(PartTest, WhatIsLateWhileItsMessageIsAwayLeavesTheOthersAlone) {
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
  ASSERT_EQ(inner_.num_arrivals(), message + 1);
  // The message needs nothing of the calls that are gone.
  const Arrival arrival = inner_.arrival(message);
  EXPECT_EQ(arrival.inference->model, "swiglu_forward_FP16");
  EXPECT_EQ(arrival.inference->inputs[0].name, "e");
  EXPECT_EQ(arrival.context.options->statistics, nullptr);
  inner_.Answer(message, ResultOf(absl::OkStatus()));
  for (const auto& call : calls) EXPECT_TRUE(call->status().ok() && call->IsRight());
}

TEST_P(PartTest, WhatIsLateIsNotSentAloneWhenItsMessageIsRefused) {
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
  ASSERT_EQ(inner_.num_arrivals(), message + 1);
  inner_.Answer(message, ResultOf(absl::ResourceExhaustedError("too large")));
  ASSERT_EQ(inner_.num_arrivals(), message + 1 + calls.size());
  for (size_t i = 0; i < calls.size(); ++i) {
    EXPECT_EQ(inner_.arrival(message + 1 + i).inference, &calls[i]->inference());
    inner_.Answer(message + 1 + i);
    EXPECT_TRUE(calls[i]->IsRight());
  }
}

INSTANTIATE_TEST_SUITE_P(CoalescingConnectionTest, PartTest, ::testing::Range(0u, 15u));

}  // namespace
}  // namespace swiglu::client
