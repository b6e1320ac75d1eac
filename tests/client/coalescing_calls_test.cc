// SPDX-License-Identifier: Apache-2.0
//
// Which calls are joined, and which leave alone.
#include <cstddef>
#include <functional>
#include <ostream>
#include <string>

#include "gtest/gtest.h"
#include "tests/client/coalescing_fixture.h"
#include "tests/client/fake_connection.h"

namespace swiglu::client {
namespace {

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

}  // namespace
}  // namespace swiglu::client
