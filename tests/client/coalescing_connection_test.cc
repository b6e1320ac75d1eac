// SPDX-License-Identifier: Apache-2.0
//
// Which messages of joined calls leave, when, and what they have. coalescing_calls_test.cc has the
// calls that are joined, coalescing_ends_test.cc and coalescing_errors_test.cc their ends.
#include "client/coalescing_connection.h"

#include <algorithm>
#include <cstddef>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "client/event_queue.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/coalescing_fixture.h"
#include "tests/client/fake_connection.h"

namespace swiglu::client {
namespace {

using ::testing::ElementsAre;

// As few as two are quicker alone. Once there were three, calls gather again as soon as one is
// away.
TEST_F(CoalescingConnectionTest, AFewCallsGoAloneEach) {
  CoalescingOptions options = OneAway();
  options.max_alone = 2;
  Use(options);
  const auto calls = NewCalls(4);
  Start(*calls[0]);
  Start(*calls[1]);
  ASSERT_EQ(inner_.num_arrivals(), 2u);
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(inner_.arrival(i).inference, &calls[i]->inference());
  Start(*calls[2]);
  ASSERT_EQ(inner_.num_arrivals(), 2u);
  inner_.Answer(0, ResultOf(absl::OkStatus()));
  ASSERT_EQ(inner_.num_arrivals(), 2u) << "there is room for one message, and one is away";
  inner_.Answer(1, ResultOf(absl::OkStatus()));
  ASSERT_EQ(inner_.num_arrivals(), 3u);
  Start(*calls[3]);
  EXPECT_EQ(inner_.num_arrivals(), 3u);
  inner_.Answer(2, ResultOf(absl::OkStatus()));
  ASSERT_EQ(inner_.num_arrivals(), 4u);
  inner_.Answer(3, ResultOf(absl::OkStatus()));
  for (const auto& call : calls) EXPECT_TRUE(call->IsRight());
}

TEST_F(CoalescingConnectionTest, CallsGoAloneAgainWhenTheyHaveBeenFewForAWhile) {
  CoalescingOptions options = OneAway();
  options.max_alone = 2;
  Use(options);
  const auto three = NewCalls(3);
  for (const auto& call : three) Start(*call);
  for (size_t i = 0; i < 3; ++i) inner_.Answer(i, ResultOf(absl::OkStatus()));
  for (size_t i = 3; i < 3 + 128; ++i) {
    const auto call = NewCall(1);
    Start(*call);
    ASSERT_EQ(inner_.num_arrivals(), i + 1);
    inner_.Answer(i, ResultOf(absl::OkStatus()));
  }
  const auto two = NewCalls(2);
  for (const auto& call : two) Start(*call);
  ASSERT_EQ(inner_.num_arrivals(), 3u + 128 + 2);
  for (size_t i = 131; i < 133; ++i) inner_.Answer(i, ResultOf(absl::OkStatus()));
  for (const auto& call : two) EXPECT_TRUE(call->IsRight());
}

TEST_F(CoalescingConnectionTest, ACallAloneLeavesAtOnceAndUnchanged) {
  TestCall call({3, 4}, 1);
  call.options.statistics = nullptr;
  Start(call);
  ASSERT_EQ(inner_.num_arrivals(), 1u);
  const Arrival arrival = inner_.arrival(0);
  EXPECT_EQ(arrival.inference, &call.inference());
  EXPECT_EQ(arrival.context.options, &call.options);
  EXPECT_EQ(arrival.context.cancellation, &call.cancellation());
  EXPECT_NE(arrival.context.queue, nullptr);
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

// Of messages that exist at one time: each is answered at once, and ends after the next one. A
// message that was used before has old bytes where its outputs go.
TEST(CoalescedMessagesTest, AreKeptAsManyAsMayBeAway) {
  size_t leader = 0;
  int num_used_before = 0;
  std::unique_ptr<FakeConnection> answers;
  answers = std::make_unique<FakeConnection>([&](size_t number) {
    if (number == leader) return;
    const absl::Span<const std::byte> outputs =
        answers->arrival(number).inference->outputs[0].bytes;
    const auto is_old = [](std::byte byte) { return byte != std::byte{0}; };
    if (std::any_of(outputs.begin(), outputs.end(), is_old)) ++num_used_before;
    answers->Answer(number);
  });
  // The thread is busy, so no check of deadlines sends a message beside the test.
  EventThreads threads(1, [] {});
  absl::Notification is_busy, is_over;
  Timer::Start(threads.Next(), absl::Now(), [&] {
    is_busy.Notify();
    is_over.WaitForNotification();
  });
  is_busy.WaitForNotification();
  CoalescingOptions options = OneAway();
  options.max_full_away = 3;
  options.max_message_calls = 1;
  CoalescingConnection connection(answers.get(), options, &threads);
  for (const int expected : {0, 3, 3}) {
    num_used_before = 0;
    leader = answers->num_arrivals();
    std::deque<TestCall> calls;
    for (uint32_t i = 0; i < 8; ++i) calls.emplace_back(Shape{4}, i).Start(connection);
    EXPECT_EQ(answers->num_arrivals(), leader + 1);
    answers->Answer(leader);
    for (const TestCall& call : calls) EXPECT_TRUE(call.IsRight());
    EXPECT_EQ(num_used_before, expected);
  }
  is_over.Notify();
  threads.Stop();
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
  options.full_bytes = 16 + 24 + 32;
  return options;
}

class FullMessageTest : public CoalescingConnectionTest {
 protected:
  FullMessageTest() { Use(TwoFullAway()); }

  // Expects that nothing counts as gathered. REQUIRES: all calls have ended.
  void ExpectThatASmallCallWaits() {
    const size_t first = inner_.num_arrivals();
    TestCall leader({4}, 98), small({4}, 97);
    Start(leader);
    Start(small);
    EXPECT_EQ(inner_.num_arrivals(), first + 1);
    inner_.Answer(first);
    inner_.Answer(first + 1);
    EXPECT_TRUE(leader.IsRight() && small.IsRight());
  }
};

// Calls of 16, 24, 32, 40 and 48 bytes of inputs.
TEST_F(FullMessageTest, DoesNotWait) {
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
  ExpectThatASmallCallWaits();
}

TEST_F(FullMessageTest, LeavesWithoutWhatIsCancelled) {
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
  ExpectThatASmallCallWaits();
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

// It leaves in the check of deadlines, which must go on.
TEST_F(CoalescingConnectionTest, ACallThatLeavesBehindAnOverdueMessageEndsAtItsDeadline) {
  CoalescingOptions options = OneAway();
  options.overdue = absl::Milliseconds(10);
  Use(options);
  // The first call leaves alone; so do more on a busy machine, until one gathers.
  std::vector<std::unique_ptr<TestCall>> calls;
  size_t num_arrivals = 0;
  do {
    num_arrivals = inner_.num_arrivals();
    calls.push_back(NewCall(1, /*timeout=*/absl::Milliseconds(50)));
    Start(*calls.back());
  } while (inner_.num_arrivals() > num_arrivals);
  EXPECT_EQ(calls.back()->status(),
            absl::DeadlineExceededError("no answer from SERVERS within 50ms"));
  for (size_t i = 0; i < inner_.num_arrivals(); ++i) inner_.Answer(i);
  for (const auto& call : calls) call->Wait();
}

}  // namespace
}  // namespace swiglu::client
