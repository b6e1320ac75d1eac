// SPDX-License-Identifier: Apache-2.0
//
// The calls of one message: which of them are late, with a time that the test makes up, and whose
// outputs are filled. coalescing_ends_test.cc has the same over a connection.
#include "client/joined_message.h"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/fake_connection.h"

namespace swiglu::client {
namespace {

using ::testing::IsEmpty;

const absl::Time kDeadline = absl::UnixEpoch() + absl::Hours(1);
constexpr absl::Duration kTick = absl::Nanoseconds(1);

JoinedCall JoinedCallOf(TestCall& call, absl::Time deadline, Connection::Done done) {
  CallContext context{TimeLimit(call.timeout), &call.options, &call.cancellation()};
  context.limit.deadline = deadline;
  return {&call.inference(), static_cast<size_t>(call.inference().tensor_bytes()), context,
          std::move(done)};
}

// A call at its deadline is late.
TEST(EndIfOverTest, EndsWhatIsLateOrCancelled) {
  TestCall call({4}, 1);
  std::vector<EndedCall> ended;
  absl::Status told;
  JoinedCall joined =
      JoinedCallOf(call, kDeadline, [&told](const CallResult& result) { told = result.status; });
  EndIfOver(joined, kDeadline - kTick, "SERVERS", &ended);
  EXPECT_THAT(ended, IsEmpty());
  EXPECT_NE(joined.inference, nullptr);
  EndIfOver(joined, kDeadline, "SERVERS", &ended);
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(joined.inference, nullptr);
  EndAll(std::move(ended));
  EXPECT_EQ(told, absl::DeadlineExceededError("no answer from SERVERS within 1m"));
}

TEST(EndIfOverTest, WhatIsCancelledAndLateIsCancelled) {
  TestCall call({4}, 1);
  call.cancellation().Cancel();
  std::vector<EndedCall> ended;
  JoinedCall joined = JoinedCallOf(call, kDeadline, [](const CallResult&) {});
  EndIfOver(joined, kDeadline, "SERVERS", &ended);
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].status, absl::CancelledError("the call was cancelled"));
}

// A message of four calls. Those of every subset, as bits, are late before the others.
class JoinedMessageTest : public ::testing::TestWithParam<unsigned> {
 protected:
  static constexpr size_t kNumCalls = 4;

  JoinedMessageTest() {
    std::vector<JoinedCall> joined;
    for (size_t i = 0; i < kNumCalls; ++i) {
      TestCall& call = calls_.emplace_back(Shape{static_cast<int64_t>(2 + i)}, i);
      joined.push_back(
          JoinedCallOf(call, IsLate(i) ? kDeadline : kDeadline + kTick,
                       [this, i](const CallResult& result) { told_[i] = result.status; }));
    }
    message_.Fill(std::move(joined));
    message_.CopyInputs();
  }

  static bool IsLate(size_t i) { return (GetParam() >> i & 1) != 0; }
  static size_t NumLate() { return static_cast<size_t>(__builtin_popcount(GetParam())); }

  std::deque<TestCall> calls_;
  absl::optional<absl::Status> told_[kNumCalls];
  JoinedMessage message_;
  std::vector<EndedCall> ended_;
};

TEST_P(JoinedMessageTest, EndsWhatIsLateOnceAndOnlyWhenItIsSent) {
  EXPECT_TRUE(message_.EndLate(kDeadline, "SERVERS", &ended_));
  EXPECT_THAT(ended_, IsEmpty()) << "the calls are in use until the message is sent";
  message_.SetSent();
  EXPECT_TRUE(message_.EndLate(kDeadline - kTick, "SERVERS", &ended_));
  EXPECT_THAT(ended_, IsEmpty());
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(message_.EndLate(kDeadline, "SERVERS", &ended_), NumLate() < kNumCalls);
    EXPECT_EQ(ended_.size(), NumLate());
  }
  EndAll(std::move(ended_));
  for (size_t i = 0; i < kNumCalls; ++i) {
    ASSERT_EQ(told_[i].has_value(), IsLate(i));
    if (!IsLate(i)) continue;
    EXPECT_EQ(*told_[i], absl::DeadlineExceededError("no answer from SERVERS within 1m"));
  }
}

TEST_P(JoinedMessageTest, FillsAndReturnsTheOthers) {
  message_.SetSent();
  message_.EndLate(kDeadline, "SERVERS", &ended_);
  FakeCompute(message_.inference());
  message_.CopyOutputs();
  for (size_t i = 0; i < kNumCalls; ++i) EXPECT_EQ(calls_[i].IsRight(), !IsLate(i));
  const std::vector<JoinedCall> left = message_.TakeCalls();
  EXPECT_EQ(left.size(), kNumCalls - NumLate());
  for (const JoinedCall& call : left) EXPECT_NE(call.inference, nullptr);
  EXPECT_EQ(message_.num_calls(), kNumCalls);
}

TEST_P(JoinedMessageTest, IsNotSentWhenItIsUsedAgain) {
  message_.SetSent();
  message_.TakeCalls();
  TestCall call({4}, 1);
  std::vector<JoinedCall> joined;
  joined.push_back(JoinedCallOf(call, kDeadline, [](const CallResult&) {}));
  message_.Fill(std::move(joined));
  EXPECT_TRUE(message_.EndLate(kDeadline, "SERVERS", &ended_));
  EXPECT_THAT(ended_, IsEmpty());
  EXPECT_EQ(message_.num_calls(), 1u);
}

INSTANTIATE_TEST_SUITE_P(EverySubset, JoinedMessageTest, ::testing::Range(0u, 16u));

}  // namespace
}  // namespace swiglu::client
