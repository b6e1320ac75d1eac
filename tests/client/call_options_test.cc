// SPDX-License-Identifier: Apache-2.0
//
// What a single call sends with it, and what it tells about itself.
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "proto/inference.pb.h"
#include "swiglu/client.h"
#include "tests/client/bytes.h"
#include "tests/client/client_fixture.h"
#include "tests/client/fake_server.h"

namespace swiglu::client {
namespace {

// A server that echoes and keeps the calls that it got.
class CallOptionsTest : public ClientTest {
 protected:
  absl::Status Forward(const CallOptions& options) {
    return client_->Forward(View(e_, shape_), View(g_, shape_), options).status();
  }
  std::string Metadata(const std::string& key) {
    absl::MutexLock lock(&mutex_);
    const auto found = last_.metadata.find(key);
    return found == last_.metadata.end() ? "none" : found->second;
  }
  inference::ModelInferRequest Request() {
    absl::MutexLock lock(&mutex_);
    inference::ModelInferRequest request;
    EXPECT_TRUE(request.ParseFromString(last_.message));
    return request;
  }

  absl::Mutex mutex_;
  FakeCall last_ ABSL_GUARDED_BY(mutex_);
  std::string timing_ ABSL_GUARDED_BY(mutex_);  // what the server tells of its times
  FakeServer server_{[this](const FakeCall& call) {
    absl::MutexLock lock(&mutex_);
    last_ = call;
    FakeReply reply = EchoInfer(call);
    if (!timing_.empty()) reply.trailers["server-timing"] = timing_;
    return reply;
  }};
  std::unique_ptr<Client> client_ = Connect(server_.address());
};

TEST_F(CallOptionsTest, SendsTheRequestIdAndTheTrace) {
  const std::string trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  ASSERT_TRUE(Forward({.request_id = "step 7", .traceparent = trace}).ok());
  EXPECT_EQ(Metadata("x-request-id"), "step 7");
  EXPECT_EQ(Metadata("traceparent"), trace);
  ASSERT_TRUE(Forward({}).ok());
  EXPECT_EQ(Metadata("x-request-id"), "none");
  EXPECT_EQ(Metadata("traceparent"), "none");
}

TEST_F(CallOptionsTest, RefusesMetadataThatCannotBeSent) {
  EXPECT_EQ(
      Forward({.request_id = "line\nbreak"}),
      absl::InvalidArgumentError("option request_id has a character that is not printable ASCII"));
  EXPECT_EQ(
      Forward({.traceparent = "\xc3\xa4"}),
      absl::InvalidArgumentError("option traceparent has a character that is not printable ASCII"));
  EXPECT_TRUE(Forward({.request_id = std::string(256, 'x')}).ok());
  EXPECT_EQ(Forward({.request_id = std::string(257, 'x')}),
            absl::InvalidArgumentError("option request_id has 257 characters; it takes 256"));
}

TEST_F(CallOptionsTest, SendsThePriority) {
  ASSERT_TRUE(Forward({.priority = 3}).ok());
  EXPECT_EQ(Request().parameters().at("priority").uint64_param(), 3u);
  ASSERT_TRUE(Forward({}).ok());
  EXPECT_EQ(Request().parameters_size(), 0);
}

TEST_F(CallOptionsTest, AsksForTheServersTimesOnlyIfStatisticsAreWanted) {
  {
    absl::MutexLock lock(&mutex_);
    timing_ = "queue;dur=0.013, compute;dur=2.5";
  }
  CallStatistics statistics;
  ASSERT_TRUE(Forward({.statistics = &statistics}).ok());
  EXPECT_EQ(Metadata("swiglu-want-timing"), "1");
  EXPECT_EQ(statistics.queue_time, absl::Microseconds(13));
  EXPECT_EQ(statistics.compute_time, absl::Microseconds(2500));
  EXPECT_EQ(statistics.num_messages, 1);
  EXPECT_EQ(statistics.num_joined, 1);
  EXPECT_EQ(statistics.server, server_.address());
  EXPECT_GT(statistics.bytes_sent, 48);
  EXPECT_GT(statistics.bytes_received, 24);
  ASSERT_TRUE(Forward({}).ok());
  EXPECT_EQ(Metadata("swiglu-want-timing"), "none");
}

TEST_F(CallOptionsTest, TimesThatAreNoNumbersAreNone) {
  CallStatistics statistics;
  for (const char* const timing : {"", "queue", "queue;dur=, compute;dur=x", "total;dur=1"}) {
    {
      absl::MutexLock lock(&mutex_);
      timing_ = timing;
    }
    ASSERT_TRUE(Forward({.statistics = &statistics}).ok()) << timing;
    EXPECT_FALSE(statistics.queue_time) << timing;
    EXPECT_FALSE(statistics.compute_time) << timing;
  }
}

TEST_F(CallOptionsTest, ChunksAddUp) {
  {
    absl::MutexLock lock(&mutex_);
    timing_ = "queue;dur=1, compute;dur=2";
  }
  client_ = Connect(server_.address(), {.max_message_bytes = 4096});
  const std::string bytes = Pattern(6000, 1);
  CallStatistics statistics;
  ASSERT_TRUE(
      client_->Forward(View(bytes, {3000}), View(bytes, {3000}), {.statistics = &statistics}).ok());
  EXPECT_EQ(statistics.num_messages, 4);
  EXPECT_EQ(statistics.queue_time, absl::Milliseconds(4));
  EXPECT_EQ(statistics.compute_time, absl::Milliseconds(8));
  EXPECT_GT(statistics.bytes_sent, 12000);
  EXPECT_GT(statistics.bytes_received, 6000);
}

TEST_F(CallOptionsTest, TheHookIsToldOfEveryCall) {
  absl::Mutex mutex;
  std::vector<std::string> calls;
  client_ = Connect(server_.address(), {.on_call = [&](const CallRecord& record) {
                      absl::MutexLock lock(&mutex);
                      EXPECT_EQ(record.statistics.num_messages, record.status.ok() ? 1 : 0);
                      calls.push_back(std::string(record.model) + " " + record.status.ToString());
                    }});
  ASSERT_TRUE(Forward({}).ok());
  EXPECT_TRUE(client_->ForwardAsync(View(e_, shape_), View(g_, shape_)).Get().ok());
  EXPECT_FALSE(Forward({.timeout = absl::ZeroDuration()}).ok());
  absl::MutexLock lock(&mutex);
  ASSERT_EQ(calls.size(), 3u);
  EXPECT_EQ(calls[0], "swiglu_forward_fp16 OK");
  EXPECT_EQ(calls[1], "swiglu_forward_fp16 OK");
  EXPECT_EQ(calls[2].rfind("swiglu_forward_fp16 DEADLINE_EXCEEDED", 0), 0u) << calls[2];
}

// At least as long as its server held it, at most as long as the whole of this test.
TEST_F(CallOptionsTest, TheHookIsToldHowLongACallTook) {
  absl::Notification has_come, may_answer;
  absl::Time came;
  FakeServer holds([&](const FakeCall& call) {
    came = absl::Now();
    has_come.Notify();
    may_answer.WaitForNotification();
    return EchoInfer(call);
  });
  absl::Duration latency;
  client_ = Connect(holds.address(),
                    {.on_call = [&](const CallRecord& record) { latency = record.latency; }});
  const absl::Time before = absl::Now();
  auto future = client_->ForwardAsync(View(e_, shape_), View(g_, shape_));
  has_come.WaitForNotification();
  const absl::Duration held = absl::Now() - came;
  may_answer.Notify();
  EXPECT_TRUE(future.Get().ok());
  EXPECT_GE(latency, held);
  EXPECT_LE(latency, absl::Now() - before);
}

}  // namespace
}  // namespace swiglu::client
