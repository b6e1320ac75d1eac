// SPDX-License-Identifier: Apache-2.0
//
// Which failures are sent again, where, how often, and what the call is told. retry_test.cc has the
// rules, and the whole client against a server.
#include "client/retrying_connection.h"

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/event_queue.h"
#include "client/retry.h"
#include "client/server_choice.h"
#include "gtest/gtest.h"
#include "tests/client/fake_choice.h"
#include "tests/client/fake_connection.h"

namespace swiglu::client {
namespace {

constexpr int kAttempts = 4;

CallResult Refused(absl::Status status, absl::optional<absl::Duration> pushback = absl::nullopt) {
  CallResult result = ResultOf(std::move(status));
  result.pushback = pushback;
  result.statistics.bytes_sent = 100;
  result.statistics.bytes_received = 10;
  return result;
}

// So a retry has nothing to wait for.
CallResult BusyNow() { return Refused(absl::UnavailableError("busy"), absl::ZeroDuration()); }

class RetryingConnectionTest : public ::testing::Test {
 protected:
  // Answers arrivals in turn with `results`, and all further ones with OK.
  void Script(std::vector<CallResult> results) { results_ = std::move(results); }

  // Makes the call, and returns how it ended.
  const CallResult& Run(TestCall& call) {
    call.Start(connection_);
    return call.Wait();
  }
  const CallResult& Run() { return Run(call_); }

  ServerSet TriedAt(size_t number) const { return inner_.arrival(number).context.tried; }
  // REQUIRES: the call has ended.
  const std::vector<absl::Time>& ArrivalTimes() const { return times_; }

  std::vector<CallResult> results_;
  std::vector<absl::Time> times_;
  FakeConnection inner_{[this](size_t number) {
    times_.push_back(absl::Now());
    inner_.AnswerOnQueue(number,
                         number < results_.size() ? results_[number] : Refused(absl::OkStatus()));
  }};
  FakeChoice servers_;
  EventThreads threads_{2, [] {}};
  RetryBudget budget_{0.1};
  RetryingConnection connection_{&inner_, kAttempts, &budget_, &servers_, &threads_};
  TestCall call_{{3, 4}, 1};
};

TEST_F(RetryingConnectionTest, PassesAResultOn) {
  EXPECT_EQ(Run().status, absl::OkStatus());
  EXPECT_TRUE(call_.IsRight());
  EXPECT_EQ(call_.Wait().statistics.num_messages, 1);
  EXPECT_EQ(call_.Wait().statistics.bytes_sent, 100);
  ASSERT_EQ(inner_.num_arrivals(), 1u);
  const Arrival arrival = inner_.arrival(0);
  EXPECT_EQ(arrival.inference, &call_.inference());
  EXPECT_EQ(arrival.context.cancellation, &call_.cancellation());
}

TEST_F(RetryingConnectionTest, SendsAgainWhatIsUnavailable) {
  Script({Refused(absl::UnavailableError("away")), BusyNow()});
  EXPECT_EQ(Run().status, absl::OkStatus());
  EXPECT_TRUE(call_.IsRight());
  EXPECT_EQ(call_.Wait().statistics.num_messages, 3);
  EXPECT_EQ(call_.Wait().statistics.bytes_sent, 300);
  EXPECT_EQ(call_.Wait().statistics.bytes_received, 30);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(inner_.arrival(i).inference, &call_.inference());
    EXPECT_EQ(inner_.arrival(i).context.limit.deadline, inner_.arrival(0).context.limit.deadline);
    EXPECT_EQ(inner_.arrival(i).context.queue, inner_.arrival(0).context.queue);
  }
}

// After the third attempt at least 200 ms.
TEST_F(RetryingConnectionTest, WaitsForAConnection) {
  CallResult lost = Refused(absl::UnavailableError("no connection"));
  lost.is_lost = true;
  Script({BusyNow(), BusyNow(), lost});
  EXPECT_EQ(Run().status, absl::OkStatus());
  const std::vector<absl::Time> times = ArrivalTimes();
  ASSERT_EQ(times.size(), 4u);
  EXPECT_GE(times[3] - times[2], absl::Milliseconds(200));
}

TEST_F(RetryingConnectionTest, PartsOfACallPayForARetryOnce) {
  // Retries for two rounds of one call are left.
  for (int i = 0; i < static_cast<int>(RetryBudget::kMostRetries) - 2; ++i) {
    ASSERT_TRUE(budget_.SpendOnRetry());
  }
  Script({BusyNow(), BusyNow(), Refused(absl::OkStatus()), BusyNow(), BusyNow()});
  std::atomic<int> paid_retries = 0;
  for (uint32_t part = 0; part < 2; ++part) {
    TestCall call({3, 4}, part);
    call.paid_retries = &paid_retries;
    EXPECT_EQ(Run(call).status, absl::OkStatus());
  }
  EXPECT_EQ(paid_retries, 2);
  EXPECT_EQ(inner_.num_arrivals(), 6u);
  EXPECT_FALSE(budget_.SpendOnRetry());
}

TEST_F(RetryingConnectionTest, TellsHowOftenItTried) {
  Script({BusyNow(), BusyNow(), BusyNow(), BusyNow(), BusyNow()});
  EXPECT_EQ(Run().status, absl::UnavailableError("busy (tried 4 times)"));
  EXPECT_EQ(inner_.num_arrivals(), 4u);
  EXPECT_EQ(call_.Wait().statistics.num_messages, 4);
}

TEST_F(RetryingConnectionTest, LeavesOtherErrorsAsTheyAre) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "so it is");
    if (absl::IsUnavailable(status)) continue;
    Script(std::vector<CallResult>(inner_.num_arrivals() + 1, Refused(status)));
    const size_t before = inner_.num_arrivals();
    TestCall call({3, 4}, 1);
    EXPECT_EQ(Run(call).status, status);
    EXPECT_EQ(inner_.num_arrivals(), before + 1);
  }
}

TEST_F(RetryingConnectionTest, SendsAgainWhatIsExhaustedWithAPushback) {
  Script({Refused(absl::ResourceExhaustedError("full"), absl::Milliseconds(1))});
  EXPECT_EQ(Run().status, absl::OkStatus());
  EXPECT_EQ(inner_.num_arrivals(), 2u);
}

TEST_F(RetryingConnectionTest, APushbackBelowZeroMeansNever) {
  Script({Refused(absl::UnavailableError("full"), absl::Milliseconds(-1))});
  EXPECT_EQ(Run().status, absl::UnavailableError("full"));
  EXPECT_EQ(inner_.num_arrivals(), 1u);
}

TEST_F(RetryingConnectionTest, DoesNotWaitForWhatComesTooLate) {
  Script({Refused(absl::UnavailableError("full"), absl::Hours(1))});
  EXPECT_EQ(Run().status, absl::UnavailableError("full"));
  EXPECT_EQ(inner_.num_arrivals(), 1u);
}

TEST_F(RetryingConnectionTest, WhatWasNotSentIsNotSentAgain) {
  CallResult unsent = BusyNow();
  unsent.server = -1;
  Script({unsent});
  EXPECT_EQ(Run().status, absl::UnavailableError("busy"));
  EXPECT_EQ(inner_.num_arrivals(), 1u);
}

TEST_F(RetryingConnectionTest, KeepsToTheBudget) {
  while (budget_.SpendOnRetry()) {
  }
  Script({BusyNow()});
  EXPECT_EQ(Run().status, absl::UnavailableError("busy"));
  EXPECT_EQ(inner_.num_arrivals(), 1u);
}

// What a call gets that finds no connection.
CallResult NoConnection() {
  CallResult result = Refused(absl::UnavailableError("no connection"));
  result.is_lost = true;
  result.reached_no_server = true;
  return result;
}

TEST_F(RetryingConnectionTest, WhatReachedNoServerTakesNothingFromTheBudget) {
  while (budget_.SpendOnRetry()) {
  }
  Script({NoConnection()});
  EXPECT_EQ(Run().status, absl::OkStatus());
  EXPECT_EQ(inner_.num_arrivals(), 2u);
}

// The server may have worked on it.
TEST_F(RetryingConnectionTest, WhatIsLostOnItsWayTakesARetry) {
  while (budget_.SpendOnRetry()) {
  }
  CallResult lost = NoConnection();
  lost.reached_no_server = false;
  Script({lost});
  EXPECT_EQ(Run().status, absl::UnavailableError("no connection"));
  EXPECT_EQ(inner_.num_arrivals(), 1u);
}

TEST_F(RetryingConnectionTest, WithoutRetriesNothingIsSentAgain) {
  RetryBudget none(0);
  RetryingConnection connection(&inner_, kAttempts, &none, &servers_, &threads_);
  Script({NoConnection()});
  call_.Start(connection);
  EXPECT_EQ(call_.Wait().status, absl::UnavailableError("no connection"));
  EXPECT_EQ(inner_.num_arrivals(), 1u);
}

TEST_F(RetryingConnectionTest, AnotherServerIsAskedAtOnceAndWithoutBudget) {
  while (budget_.SpendOnRetry()) {
  }
  servers_.set_num_servers(3);
  servers_.SetHasOther([](const ServerSet& tried) { return !tried.Has(0) || !tried.Has(2); });
  CallResult of_2 = Refused(absl::UnavailableError("full"), absl::Hours(1));
  of_2.server = 2;
  CallResult of_0 = of_2;
  of_0.server = 0;
  Script({of_2, of_0});
  EXPECT_EQ(Run().status, absl::UnavailableError("full (tried 2 times)"));
  ASSERT_EQ(inner_.num_arrivals(), 2u);
  EXPECT_FALSE(TriedAt(0).Has(2));
  EXPECT_TRUE(TriedAt(1).Has(2));
  EXPECT_FALSE(TriedAt(1).Has(0));
}

TEST_F(RetryingConnectionTest, WaitsNoLongerThanUntilAServerMayBeCalled) {
  servers_.set_num_servers(2);
  servers_.set_time_until_open(absl::Milliseconds(1));
  Script({Refused(absl::UnavailableError("full"), absl::Hours(1))});
  EXPECT_EQ(Run().status, absl::OkStatus());
  EXPECT_EQ(inner_.num_arrivals(), 2u);
}

TEST_F(RetryingConnectionTest, WhatMayHaveOverwrittenItsInputIsNotSentAgain) {
  const RegionPart part{"region", 24, 0, 24};
  call_.inference().inputs[0].part = part;
  call_.inference().outputs[0].part = part;
  Script({BusyNow(), Refused(absl::UnavailableError("away"))});
  EXPECT_EQ(Run().status, absl::UnavailableError("away (tried 2 times)"));
  EXPECT_EQ(inner_.num_arrivals(), 2u);
}

class ReturnedPushbackTest : public RetryingConnectionTest {
 protected:
  ReturnedPushbackTest() { call_.return_pushback = true; }
};

TEST_F(ReturnedPushbackTest, IsTheCallersToHandle) {
  Script({Refused(absl::UnavailableError("full"), absl::Milliseconds(7))});
  EXPECT_EQ(Run().status, absl::UnavailableError("full"));
  EXPECT_EQ(call_.Wait().pushback, absl::Milliseconds(7));
  EXPECT_EQ(inner_.num_arrivals(), 1u);
}

TEST_F(ReturnedPushbackTest, OtherwiseIsSentAgain) {
  Script({Refused(absl::UnavailableError("away"))});
  EXPECT_EQ(Run().status, absl::OkStatus());
  EXPECT_EQ(inner_.num_arrivals(), 2u);
}

TEST_F(ReturnedPushbackTest, GoesToAnotherServerFirst) {
  servers_.set_num_servers(2);
  servers_.SetHasOther([](const ServerSet&) { return true; });
  Script({Refused(absl::UnavailableError("full"), absl::Milliseconds(7))});
  EXPECT_EQ(Run().status, absl::OkStatus());
  EXPECT_EQ(inner_.num_arrivals(), 2u);
}

TEST(RetryCancelTest, ACancelledCallDoesNotWait) {
  std::unique_ptr<FakeConnection> inner;
  absl::Notification is_refused;
  inner = std::make_unique<FakeConnection>([&](size_t number) {
    const bool is_cancelled = inner->arrival(number).context.cancellation->is_cancelled();
    inner->AnswerOnQueue(number, is_cancelled
                                     ? ResultOf(absl::CancelledError("the call was cancelled"))
                                     : Refused(absl::UnavailableError("full"), absl::Seconds(50)));
    if (number == 0) is_refused.Notify();
  });
  FakeChoice servers;
  EventThreads threads(1, [] {});
  RetryBudget budget(0.1);
  RetryingConnection connection(inner.get(), kAttempts, &budget, &servers, &threads);
  TestCall call({3, 4}, 1);
  call.timeout = absl::Hours(1);
  call.Start(connection);
  is_refused.WaitForNotification();
  call.cancellation().Cancel();
  EXPECT_EQ(call.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(inner->num_arrivals(), 2u);
}

}  // namespace
}  // namespace swiglu::client
