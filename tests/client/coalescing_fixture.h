// SPDX-License-Identifier: Apache-2.0
//
// A connection that joins calls, and calls that gather. The test stands for the server, and answers
// on its own thread. So, unless a deadline is the subject, nothing depends on time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/coalescing_connection.h"
#include "client/event_queue.h"
#include "gtest/gtest.h"
#include "tests/client/fake_connection.h"

namespace swiglu::client {

inline constexpr int64_t kMaxCallBytes = 1000;

inline CoalescingOptions OneAway() {
  CoalescingOptions options;
  options.max_call_bytes = kMaxCallBytes;
  options.overdue = absl::InfiniteDuration();
  options.servers = "SERVERS";
  return options;
}

inline std::unique_ptr<TestCall> NewCall(uint32_t seed, absl::Duration timeout = absl::Minutes(1)) {
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

inline std::vector<std::unique_ptr<TestCall>> NewCalls(int count) {
  std::vector<std::unique_ptr<TestCall>> calls;
  for (int i = 0; i < count; ++i) calls.push_back(NewCall(static_cast<uint32_t>(i)));
  return calls;
}

inline std::string JoinedInput(const std::vector<std::unique_ptr<TestCall>>& calls, size_t k) {
  std::string bytes;
  for (const auto& call : calls) bytes += call->input(k);
  return bytes;
}

}  // namespace swiglu::client
