// SPDX-License-Identifier: Apache-2.0
//
// What each call makes of the end of its message: an error, and the statistics.
#include <cstddef>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tests/client/coalescing_fixture.h"
#include "tests/client/fake_connection.h"

namespace swiglu::client {
namespace {

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
  refused.statistics.bytes_sent = 500;
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
    EXPECT_NE(alone.context.queue, nullptr);
    EXPECT_FALSE(calls[i]->HasEnded());
  }
  CallResult good = ResultOf(absl::OkStatus());
  good.statistics.bytes_sent = 100;
  inner_.Answer(message + 1, good);
  inner_.Answer(message + 2, ResultOf(Error("of one")));
  inner_.Answer(message + 3, ResultOf(absl::UnavailableError("of one")));
  EXPECT_EQ(inner_.num_arrivals(), message + 4) << "each is sent alone once";
  EXPECT_TRUE(calls[0]->status().ok() && calls[0]->IsRight());
  EXPECT_EQ(calls[0]->Wait().statistics.num_messages, 2);
  EXPECT_EQ(calls[0]->Wait().statistics.bytes_sent, 600);
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

}  // namespace
}  // namespace swiglu::client
