// SPDX-License-Identifier: Apache-2.0
//
// Second attempts of small calls, over a connection that does what the test says.
#include "client/hedging_connection.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/event_queue.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/bytes.h"

namespace swiglu::client {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

CallResult EndedBy(absl::Status status) {
  CallResult result;
  result.status = std::move(status);
  return result;
}

// Keeps every attempt until the test ends it. A cancelled one ends by itself. The first attempt
// goes to server 0, the next one to server 1, and so on.
class HeldAttempts final : public Connection {
 public:
  struct Held {
    const Inference* inference;
    CallContext context;
    Done done;
  };

  void StartInfer(const Inference& inference, const CallContext& context, Done done) override {
    const size_t number = num_started_++;
    if (context.sent_to != nullptr) *context.sent_to = static_cast<int>(number);
    if (context.cancellation != nullptr) {
      context.cancellation->SetStop([this, number] {
        absl::MutexLock lock(&mutex_);
        cancelled_.push_back(number);
      });
    }
    // Another thread may now end the attempt.
    absl::MutexLock lock(&mutex_);
    held_.emplace(number, Held{&inference, context, std::move(done)});
  }

  const Held& WaitFor(size_t number) {
    absl::MutexLock lock(&mutex_);
    const auto is_there = [this, number]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return held_.count(number) > 0;
    };
    mutex_.Await(absl::Condition(&is_there));
    return held_.at(number);
  }

  // Succeeds with outputs of that byte.
  void Answer(size_t number, char byte) {
    const Held& held = WaitFor(number);
    for (const Inference::Output& output : held.inference->outputs) {
      std::fill(output.bytes.begin(), output.bytes.end(), static_cast<std::byte>(byte));
    }
    CallResult result;
    result.server = static_cast<int>(number);
    End(number, std::move(result));
  }

  void End(size_t number, CallResult result) {
    result.statistics.num_messages = 1;
    result.statistics.bytes_sent = 100;
    WaitFor(number);
    Done done;
    Cancellation* cancellation = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      done = std::move(held_.at(number).done);
      cancellation = held_.at(number).context.cancellation;
    }
    if (cancellation != nullptr) cancellation->ClearStop();
    std::move(done)(std::move(result));
  }

  // Waits until so many attempts are cancelled, ends them, and returns their numbers.
  std::vector<size_t> EndCancelled(size_t count) {
    std::vector<size_t> numbers;
    {
      absl::MutexLock lock(&mutex_);
      const auto are_there = [this, count]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
        return cancelled_.size() >= count;
      };
      mutex_.Await(absl::Condition(&are_there));
      numbers.swap(cancelled_);
    }
    for (const size_t number : numbers) End(number, EndedBy(absl::CancelledError("cancelled")));
    return numbers;
  }

  // Ends what has not ended.
  void EndAll(const absl::Status& status) {
    for (size_t number = 0; number < num_attempts(); ++number) {
      if (WaitFor(number).done) End(number, EndedBy(status));
    }
  }

  size_t num_attempts() {
    absl::MutexLock lock(&mutex_);
    return held_.size();
  }

 private:
  absl::Mutex mutex_;
  std::atomic<size_t> num_started_ = 0;
  std::map<size_t, Held> held_ ABSL_GUARDED_BY(mutex_);  // by number
  std::vector<size_t> cancelled_ ABSL_GUARDED_BY(mutex_);
};

class NotedServers final : public ServerChoice {
 public:
  int num_servers() const override { return its_num_servers; }
  bool HasOther(const ServerSet& /*tried*/) override { return has_other; }
  absl::Duration TimeUntilOpen() override { return absl::InfiniteDuration(); }
  void AvoidIfSilent(int server, absl::Time /*since*/) override { silent.push_back(server); }

  int its_num_servers = 2;
  std::atomic<bool> has_other = true;
  std::vector<int> silent;
};

// A call over memory of its own, h = f(e, g).
struct HedgedCall {
  explicit HedgedCall(size_t size = 24) : e(Pattern(size, 1)), g(Pattern(size, 2)), h(size, '\0') {
    inference.model = "swiglu_forward_fp16";
    inference.dtype = Dtype::kFp16;
    inference.shape = {static_cast<int64_t>(size / 2)};
    inference.inputs = {{"e", AsBytes(e)}, {"g", AsBytes(g)}};
    inference.outputs = {{"h", AsWritableBytes(h)}};
  }

  void Start(Connection& connection) {
    connection.StartInfer(inference, context, [this](CallResult its_result) {
      result = std::move(its_result);
      has_ended.Notify();
    });
  }
  const CallResult& Wait() {
    has_ended.WaitForNotification();
    return result;
  }

  std::string e, g, h;
  Inference inference;
  CallOptions options;
  Cancellation cancellation;
  CallContext context{TimeLimit(absl::Minutes(10)), &options, &cancellation};
  CallResult result;
  absl::Notification has_ended;
};

class HedgingConnectionTest : public ::testing::Test {
 protected:
  static constexpr absl::Duration kNever = absl::Hours(1);

  ~HedgingConnectionTest() override { threads_.Stop(); }

  HedgingConnection& Hedging(absl::Duration delay, double hedges_per_call = 0.1,
                             absl::Duration hedge_interval = absl::InfiniteDuration()) {
    HedgingOptions options;
    options.hedge_interval = hedge_interval;
    options.delay = delay;
    options.hedges_per_call = hedges_per_call;
    hedging_ = std::make_unique<HedgingConnection>(&inner_, options, &servers_, &threads_);
    return *hedging_;
  }
  // Both attempts of the call are under way when this returns.
  void StartTwice(HedgedCall& call) {
    call.Start(Hedging(absl::Milliseconds(1)));
    inner_.WaitFor(1);
  }

  HeldAttempts inner_;
  NotedServers servers_;
  EventThreads threads_{2, [] {}};
  std::unique_ptr<HedgingConnection> hedging_;
};

TEST_F(HedgingConnectionTest, AnAnswerInTimeNeedsOneAttempt) {
  HedgedCall call;
  call.Start(Hedging(kNever));
  inner_.Answer(0, 'a');
  EXPECT_EQ(call.Wait().status, absl::OkStatus());
  EXPECT_EQ(call.h, std::string(24, 'a'));
  EXPECT_EQ(inner_.num_attempts(), 1u);
}

TEST_F(HedgingConnectionTest, TheSecondAttemptGoesToAnotherServerAndItsAnswerCounts) {
  HedgedCall call;
  StartTwice(call);
  const ServerSet& tried = inner_.WaitFor(1).context.tried;
  EXPECT_TRUE(tried.Has(0));
  EXPECT_FALSE(tried.Has(1));
  inner_.Answer(1, 'b');
  EXPECT_THAT(inner_.EndCancelled(1), ElementsAre(0));
  EXPECT_EQ(call.Wait().status, absl::OkStatus());
  EXPECT_EQ(call.h, std::string(24, 'b'));
  EXPECT_EQ(call.result.server, 1);
  EXPECT_EQ(call.result.statistics.num_messages, 2);
  EXPECT_EQ(call.result.statistics.bytes_sent, 200);
  EXPECT_THAT(servers_.silent, ElementsAre(0));
}

TEST_F(HedgingConnectionTest, TheFirstAttemptMayStillWin) {
  HedgedCall call;
  StartTwice(call);
  inner_.Answer(0, 'a');
  EXPECT_THAT(inner_.EndCancelled(1), ElementsAre(1));
  EXPECT_EQ(call.Wait().status, absl::OkStatus());
  EXPECT_EQ(call.h, std::string(24, 'a'));
  EXPECT_EQ(call.result.server, 0);
  EXPECT_THAT(servers_.silent, IsEmpty());
}

// The answers may come at the same time.
TEST_F(HedgingConnectionTest, TheFirstOfTwoAnswersCounts) {
  HedgedCall call;
  StartTwice(call);
  inner_.Answer(1, 'b');
  inner_.Answer(0, 'a');
  EXPECT_EQ(call.Wait().status, absl::OkStatus());
  EXPECT_EQ(call.h, std::string(24, 'b'));
}

TEST_F(HedgingConnectionTest, OneErrorOfTwoAttemptsIsNone) {
  for (const size_t failed : {0, 1}) {
    HedgedCall call;
    const size_t first = inner_.num_attempts();
    call.Start(Hedging(absl::Milliseconds(1)));
    inner_.WaitFor(first + 1);
    inner_.End(first + failed, EndedBy(absl::UnavailableError("gone")));
    inner_.Answer(first + 1 - failed, 'c');
    EXPECT_EQ(call.Wait().status, absl::OkStatus()) << failed;
    EXPECT_EQ(call.h, std::string(24, 'c')) << failed;
    EXPECT_EQ(call.result.statistics.num_messages, 2);
  }
  EXPECT_THAT(servers_.silent, IsEmpty()) << "an error is an answer";
}

TEST_F(HedgingConnectionTest, IfBothFailTheFirstErrorIsTold) {
  HedgedCall call;
  StartTwice(call);
  inner_.End(1, EndedBy(absl::InternalError("one")));
  inner_.End(0, EndedBy(absl::UnavailableError("two")));
  EXPECT_EQ(call.Wait().status, absl::InternalError("one"));
}

TEST_F(HedgingConnectionTest, AnErrorBeforeTheDelayIsAnError) {
  HedgedCall call;
  call.Start(Hedging(kNever));
  inner_.End(0, EndedBy(absl::UnavailableError("gone")));
  EXPECT_EQ(call.Wait().status, absl::UnavailableError("gone"));
  EXPECT_EQ(inner_.num_attempts(), 1u);
}

// The first attempt fails halfway through an answer, over the memory of an input.
TEST_F(HedgingConnectionTest, TheSecondAttemptSendsTheCallersBytes) {
  HedgedCall call;
  call.inference.outputs = {{"h", AsWritableBytes(call.e)}};
  const std::string e = call.e;
  StartTwice(call);
  std::fill(call.e.begin(), call.e.end(), '!');
  inner_.End(0, EndedBy(absl::InternalError("bad response")));
  EXPECT_EQ(AsText(inner_.WaitFor(1).inference->inputs[0].bytes), e);
  EXPECT_EQ(AsText(inner_.WaitFor(1).inference->inputs[1].bytes), call.g);
  inner_.Answer(1, 'b');
  EXPECT_EQ(call.Wait().status, absl::OkStatus());
  EXPECT_EQ(call.e, std::string(24, 'b'));
}

TEST_F(HedgingConnectionTest, ACancellationEndsBothAttempts) {
  HedgedCall call;
  StartTwice(call);
  call.cancellation.Cancel();
  EXPECT_EQ(inner_.EndCancelled(2).size(), 2u);
  EXPECT_EQ(call.Wait().status, absl::CancelledError("cancelled"));
}

TEST_F(HedgingConnectionTest, ACancellationBeforeTheDelayEndsTheCall) {
  HedgedCall call;
  call.Start(Hedging(kNever));
  call.cancellation.Cancel();
  EXPECT_THAT(inner_.EndCancelled(1), ElementsAre(0));
  EXPECT_EQ(call.Wait().status, absl::CancelledError("cancelled"));
  EXPECT_EQ(inner_.num_attempts(), 1u);
}

TEST_F(HedgingConnectionTest, ACallThatHasEndedMayBeCancelled) {
  HedgedCall call;
  call.Start(Hedging(kNever));
  inner_.Answer(0, 'a');
  EXPECT_EQ(call.Wait().status, absl::OkStatus());
  call.cancellation.Cancel();
}

// The events of its calls happen when the test takes them.
class HedgingDelayTest : public HedgingConnectionTest {
 protected:
  HedgingDelayTest() { call_.context.queue = &queue_; }

  // Returns when the delay of the call has passed so often.
  void WaitForDelays(int count) {
    for (int i = 0; i < count && queue_.num_expected() > 0; ++i) queue_.TakeOne(Wait::kSleep);
  }

  EventQueue queue_;
  HedgedCall call_;
};

TEST_F(HedgingDelayTest, ACancelledCallIsNotSentTwice) {
  call_.cancellation.Cancel();
  call_.Start(Hedging(absl::Milliseconds(1)));
  WaitForDelays(1);
  EXPECT_EQ(queue_.num_expected(), 0) << "there is no other delay";
  ASSERT_EQ(inner_.num_attempts(), 1u);
  inner_.EndCancelled(1);
  EXPECT_EQ(call_.Wait().status, absl::CancelledError("cancelled"));
}

TEST_F(HedgingDelayTest, ALateCallIsNotSentTwice) {
  call_.context.limit = TimeLimit(absl::ZeroDuration());
  call_.Start(Hedging(absl::Milliseconds(1)));
  WaitForDelays(1);
  EXPECT_EQ(queue_.num_expected(), 0) << "there is no other delay";
  ASSERT_EQ(inner_.num_attempts(), 1u);
  inner_.End(0, EndedBy(absl::DeadlineExceededError("late")));
  EXPECT_EQ(call_.Wait().status, absl::DeadlineExceededError("late"));
}

// The same server would hang again.
TEST_F(HedgingDelayTest, ASecondAttemptWaitsForAnotherServer) {
  servers_.has_other = false;
  call_.Start(Hedging(absl::Milliseconds(1)));
  WaitForDelays(3);
  ASSERT_EQ(inner_.num_attempts(), 1u);
  servers_.has_other = true;
  WaitForDelays(1);
  ASSERT_EQ(inner_.num_attempts(), 2u);
  inner_.Answer(1, 'b');
  inner_.EndCancelled(1);
  EXPECT_EQ(call_.Wait().status, absl::OkStatus());
}

TEST_F(HedgingDelayTest, TheOnlyServerGetsTheSecondAttemptToo) {
  servers_.its_num_servers = 1;
  servers_.has_other = false;
  call_.Start(Hedging(absl::Milliseconds(1)));
  WaitForDelays(1);
  ASSERT_EQ(inner_.num_attempts(), 2u);
  inner_.EndAll(absl::UnavailableError("gone"));
  EXPECT_EQ(call_.Wait().status, absl::UnavailableError("gone"));
}

TEST_F(HedgingDelayTest, ServersThatWereTriedBeforeStayTried) {
  call_.context.tried.Add(7);
  call_.Start(Hedging(absl::Milliseconds(1)));
  WaitForDelays(1);
  ASSERT_EQ(inner_.num_attempts(), 2u);
  EXPECT_TRUE(inner_.WaitFor(0).context.tried.Has(7));
  EXPECT_FALSE(inner_.WaitFor(0).context.tried.Has(0));
  EXPECT_TRUE(inner_.WaitFor(1).context.tried.Has(7));
  EXPECT_TRUE(inner_.WaitFor(1).context.tried.Has(0));
  inner_.EndAll(absl::UnavailableError("gone"));
  EXPECT_EQ(call_.Wait().status, absl::UnavailableError("gone"));
}

// It may still wait for a connection.
TEST_F(HedgingDelayTest, AnAttemptThatHasGoneNowhereRulesNoServerOut) {
  call_.Start(Hedging(absl::Milliseconds(1)));
  inner_.WaitFor(0).context.sent_to->store(-1);
  WaitForDelays(1);
  ASSERT_EQ(inner_.num_attempts(), 2u);
  for (int server = 0; server < 64; ++server) {
    EXPECT_FALSE(inner_.WaitFor(1).context.tried.Has(server)) << server;
  }
  inner_.Answer(1, 'b');
  inner_.EndCancelled(1);
  EXPECT_EQ(call_.Wait().status, absl::OkStatus());
  EXPECT_THAT(servers_.silent, IsEmpty());
}

TEST_F(HedgingDelayTest, WithoutABudgetThereIsNoSecondAttempt) {
  call_.Start(Hedging(absl::Milliseconds(1), 0));
  WaitForDelays(3);
  ASSERT_EQ(inner_.num_attempts(), 1u);
  inner_.Answer(0, 'a');
  WaitForDelays(1);
  EXPECT_EQ(call_.Wait().status, absl::OkStatus());
}

// None of the calls ends, and each asks again after every delay.
TEST_F(HedgingDelayTest, WithoutABudgetOneCallInEachIntervalIsSentTwice) {
  constexpr size_t kCalls = 8, kSentTwice = 4;
  constexpr absl::Duration kInterval = absl::Milliseconds(5);
  const absl::Time start = absl::Now();
  HedgingConnection& hedging = Hedging(absl::Milliseconds(1), 0, kInterval);
  std::deque<HedgedCall> calls(kCalls);
  for (HedgedCall& call : calls) {
    call.context.queue = &queue_;
    call.Start(hedging);
  }
  while (inner_.num_attempts() < kCalls + kSentTwice) WaitForDelays(1);
  EXPECT_GE(absl::Now() - start, kSentTwice * kInterval);
  inner_.EndAll(absl::UnavailableError("gone"));
  while (queue_.num_expected() > 0) WaitForDelays(1);
  int64_t num_messages = 0;
  for (HedgedCall& call : calls) num_messages += call.Wait().statistics.num_messages;
  EXPECT_EQ(num_messages, static_cast<int64_t>(kCalls + kSentTwice));
}

// Ten calls may be sent twice at first. A call that still waits is sent twice when it is earned.
TEST_F(HedgingConnectionTest, ACallThatWaitsIsSentTwiceWhenOthersHaveEarnedIt) {
  HedgingConnection& hedging = Hedging(absl::Milliseconds(1), 0.05);
  std::deque<HedgedCall> calls(11);
  for (HedgedCall& call : calls) call.Start(hedging);
  inner_.WaitFor(20);
  // These are not sent twice themselves.
  std::deque<HedgedCall> others(21);
  for (HedgedCall& other : others) {
    other.cancellation.Cancel();
    other.Start(hedging);
  }
  inner_.EndCancelled(21);
  inner_.WaitFor(42);
  inner_.EndAll(absl::UnavailableError("gone"));
  for (HedgedCall& call : calls) EXPECT_EQ(call.Wait().statistics.num_messages, 2);
  for (HedgedCall& other : others) EXPECT_EQ(other.Wait().statistics.num_messages, 1);
}

TEST_F(HedgingConnectionTest, OnlySmallCallsAreSentTwice) {
  constexpr size_t kMost = size_t{32} << 10;  // of each of two inputs
  struct Case {
    const char* name;
    bool is_hedged;
    size_t size;
    bool is_joined = false;
    bool is_in_region = false;
    bool has_gradients = false;
  };
  for (const Case& one : {Case{"small", true, kMost}, Case{"larger", false, kMost + 2},
                          Case{"joined", true, 16 * kMost, true},
                          Case{"large and joined", false, 16 * kMost + 2, true},
                          Case{"in a region", false, 24, false, true},
                          Case{"gradients", false, 24, false, false, true}}) {
    HedgedCall call(one.size);
    call.context.is_joined = one.is_joined;
    if (one.is_in_region) call.inference.outputs[0].part = RegionPart{"r", 24, 0, 24};
    if (one.has_gradients) call.inference.outputs[0].gradient_shape = Shape{6};
    const size_t number = inner_.num_attempts();
    call.Start(Hedging(kNever));
    EXPECT_EQ(inner_.WaitFor(number).context.sent_to != nullptr, one.is_hedged) << one.name;
    inner_.Answer(number, 'a');
    EXPECT_EQ(call.Wait().status, absl::OkStatus()) << one.name;
  }
}

}  // namespace
}  // namespace swiglu::client
