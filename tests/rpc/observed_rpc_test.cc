// SPDX-License-Identifier: Apache-2.0
//
// What the server reports of a request, value by value: the times of its phases, what its batch was
// and took, which times its caller is told, and what is free by the time that its caller hears of
// an error.
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/service/server_timing.h"
#include "tests/rpc/calls.h"

namespace swiglu::server {
namespace {

using inference::ModelInferRequest;
using std::chrono::milliseconds;
using std::chrono::seconds;

class ObservedRpcTest : public HoldingServerTest {
 protected:
  // Times that no other phase has.
  static Execution DistinctExecution() {
    Execution execution;
    execution.path = Path::kStaged;
    execution.device = 3;
    execution.times.copy_in = seconds(100);
    execution.times.compute = seconds(200);
    execution.times.copy_out = seconds(300);
    return execution;
  }
  // Of the only request so far, whose batch was held for `held`.
  void ExpectSentTimes(milliseconds held) {
    server_.observer.AwaitSent(1);
    const std::vector<SentTimes> times = server_.observer.sent_times();
    ASSERT_EQ(times.size(), 1u);
    EXPECT_GT(times[0].send.count(), 0);
    EXPECT_GE(times[0].total, times[0].send + held);
  }

  const ModelInferRequest request_ = GoodRequest(kForwardFp16, {4});
};

TEST_F(ObservedRpcTest, ARequestsPhasesAreThoseOfItsBatch) {
  BackgroundInfer infer(server_, request_);
  ASSERT_TRUE(executor_.AwaitHeld());
  executor_.CompleteWith(DistinctExecution());
  EXPECT_TRUE(infer.Wait().status.ok());
  const std::vector<RequestRecord> records = server_.observer.AwaitFinished(1);
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].times.copy_in, seconds(100));
  EXPECT_EQ(records[0].times.compute, seconds(200));
  EXPECT_EQ(records[0].times.copy_out, seconds(300));
  EXPECT_EQ(records[0].num_elements, 4);
  EXPECT_EQ(records[0].bytes_in, static_cast<int64_t>(request_.ByteSizeLong()));
  EXPECT_EQ(records[0].bytes_out, static_cast<int64_t>(infer.Wait().response.ByteSizeLong()));
}

TEST_F(ObservedRpcTest, ABatchIsReportedWithItsPathAndDevice) {
  BackgroundInfer infer(server_, GoodRequest("swiglu_backward_fp32", {4}));
  ASSERT_TRUE(executor_.AwaitHeld());
  executor_.CompleteWith(DistinctExecution());
  EXPECT_TRUE(infer.Wait().status.ok());
  const std::vector<BatchRecord> batches = server_.observer.batches();
  ASSERT_EQ(batches.size(), 1u);
  EXPECT_EQ(batches[0].model->op, Op::kBackward);
  EXPECT_EQ(batches[0].model->dtype, Dtype::kFp32);
  EXPECT_EQ(batches[0].num_requests, 1);
  EXPECT_EQ(batches[0].num_elements, 4);
  EXPECT_EQ(batches[0].execution.path, Path::kStaged);
  EXPECT_EQ(batches[0].execution.device, 3);
  EXPECT_EQ(batches[0].execution.times.copy_in, seconds(100));
  EXPECT_EQ(batches[0].execution.times.compute, seconds(200));
  EXPECT_EQ(batches[0].execution.times.copy_out, seconds(300));
}

// The time in the queue is that in the queue alone: not that of the execution.
TEST_F(ObservedRpcTest, WhatWaitsForALaneIsInTheQueue) {
  constexpr milliseconds kHeld{30};
  BackgroundInfer executing(server_, request_);
  ASSERT_TRUE(executor_.AwaitHeld());
  BackgroundInfer waiting(server_, request_);
  // It has its place in the queue before its time there begins.
  ASSERT_TRUE(Eventually([this] { return server_.batcher().outstanding_requests() == 2; }));
  Pass(kHeld);
  executor_.Complete();
  EXPECT_TRUE(executing.Wait().status.ok());
  ASSERT_TRUE(executor_.AwaitHeld());
  Pass(kHeld);
  executor_.Complete();
  EXPECT_TRUE(waiting.Wait().status.ok());
  const std::vector<RequestRecord> records = server_.observer.AwaitFinished(2);
  ASSERT_EQ(records.size(), 2u);
  EXPECT_GT(records[1].times.receive.count(), 0);
  EXPECT_GE(records[1].times.queue, kHeld);
  server_.observer.AwaitSent(2);
  EXPECT_GE(server_.observer.sent_times().at(1).total, records[1].times.queue + kHeld);
}

TEST_F(ObservedRpcTest, SendingIsPartOfTheWhole) {
  constexpr milliseconds kHeld{30};
  BackgroundInfer infer(server_, request_);
  ASSERT_TRUE(executor_.AwaitHeld());
  Pass(kHeld);
  executor_.Complete();
  EXPECT_TRUE(infer.Wait().status.ok());
  ExpectSentTimes(kHeld);
}

TEST_F(ObservedRpcTest, SendingIsPartOfTheWholeOnAStreamToo) {
  constexpr milliseconds kHeld{30};
  InferStream stream(server_);
  stream.Send(request_);
  ASSERT_TRUE(executor_.AwaitHeld());
  Pass(kHeld);
  executor_.Complete();
  stream.Receive();
  ExpectSentTimes(kHeld);
  stream.HalfClose();
  EXPECT_TRUE(stream.Finish().ok());
}

// --- What a caller is told of the times

class TimingRpcTest : public ObservedRpcTest {
 protected:
  // The times that a call's trailers have, or "none".
  static std::string TimingOf(const RawCall& call) {
    const auto trailers = call.trailers();
    EXPECT_LE(trailers.count("server-timing"), 1u);
    const auto found = trailers.find("server-timing");
    return found == trailers.end() ? "none" : found->second;
  }
  // The times that a call with `headers` is told, whose batch ends with `execution`.
  std::string TimingAfter(const Headers& headers, const Execution& execution) {
    RawCall call(server_, kInferMethod, headers);
    EXPECT_TRUE(call.Write(request_.SerializeAsString()));
    EXPECT_TRUE(call.WritesDone());
    EXPECT_TRUE(executor_.AwaitHeld());
    executor_.CompleteWith(execution);
    EXPECT_EQ(call.Finish().error_code(), static_cast<grpc::StatusCode>(execution.status.code()));
    return TimingOf(call);
  }

  // Metadata may be empty: its name is what asks.
  const Headers asking_{{"swiglu-want-timing", ""}};
};

TEST_F(TimingRpcTest, ACallerThatAsksIsToldTheTimesOfTheStatistics) {
  const std::string timing = TimingAfter(asking_, DistinctExecution());
  const ModelStatistics figures = server_.statistics.Get(GetModel(Op::kForward, Dtype::kFp16));
  ASSERT_EQ(figures.success.count, 1);
  EXPECT_EQ(timing, ServerTiming({.queue = figures.queue.time, .compute = figures.compute.time}));
  EXPECT_NE(timing.find(", compute;dur=200000.000"), std::string::npos) << timing;
}

TEST_F(TimingRpcTest, ACallerThatDoesNotAskIsToldNothing) {
  EXPECT_EQ(TimingAfter({}, DistinctExecution()), "none");
  EXPECT_EQ(TimingAfter({{"swiglu-want", "timing"}}, DistinctExecution()), "none");
}

TEST_F(TimingRpcTest, AnErrorAfterTheExecutionHasTheTimes) {
  Execution execution = DistinctExecution();
  execution.status = absl::InternalError("device 3 failed");
  EXPECT_NE(TimingAfter(asking_, execution).find("compute;dur=200000.000"), std::string::npos);
}

TEST_F(TimingRpcTest, AnErrorWithoutTimesHasNone) {
  Execution execution;
  execution.status = absl::InternalError("device 3 failed");
  EXPECT_EQ(TimingAfter(asking_, execution), "none");
}

TEST_F(TimingRpcTest, ARefusalHasNone) {
  RawCall call(server_, kInferMethod, asking_);
  EXPECT_TRUE(call.Write(GoodRequest("swiglu_forward_fp32", {4}).SerializeAsString() + "x"));
  EXPECT_TRUE(call.WritesDone());
  EXPECT_EQ(call.Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(TimingOf(call), "none");
}

TEST_F(TimingRpcTest, AStreamHasNone) {
  RawCall stream(server_, "/inference.GRPCInferenceService/ModelStreamInfer", asking_);
  EXPECT_TRUE(stream.Write(request_.SerializeAsString()));
  ASSERT_TRUE(executor_.AwaitHeld());
  executor_.CompleteWith(DistinctExecution());
  std::string answer;
  EXPECT_TRUE(stream.Read(&answer));
  EXPECT_TRUE(stream.WritesDone());
  EXPECT_TRUE(stream.Finish().ok());
  EXPECT_EQ(TimingOf(stream), "none");
}

// --- What is free by the time that a caller hears of an error

// Runs tasks on the thread that has them.
class CallersThread final : public TaskQueue {
 public:
  void Post(WorkLength, Task task) override { task(); }
  bool IsCurrent() const override { return true; }
  void BeginLongWork() override {}
  void EndLongWork() override {}
};

class ErrorRpcTest : public HoldingServerTest {
 protected:
  // Runs `request`, which fails, and expects that nothing is held when that is told.
  void ExpectFree(const ModelInferRequest& request, size_t num_batches) {
    const std::string bytes = request.SerializeAsString();
    const grpc::Slice slice(bytes);
    InferContext context;
    context.started = Clock::now();
    context.cancelled = std::make_shared<std::atomic<bool>>(false);
    context.tasks = &tasks_;
    int num_told = 0;
    grpc::ByteBuffer buffer(&slice, 1);
    ReceivedMessage message(buffer);
    server_.infer().Start(std::move(message), std::move(context), [&](InferReply reply) {
      ++num_told;
      EXPECT_EQ(reply.status, absl::InternalError("device 0 failed"));
      EXPECT_EQ(executor_.counting_pool().num_live(), 0);
      for (const MemoryKind kind :
           {MemoryKind::kReceive, MemoryKind::kStaging, MemoryKind::kResponse}) {
        EXPECT_EQ(server_.admission.used_bytes(kind), 0) << static_cast<int>(kind);
      }
      EXPECT_EQ(server_.admission.queued_requests(), 0);
    });
    for (size_t i = 0; i < num_batches; ++i) {
      EXPECT_EQ(num_told, 0);
      ASSERT_TRUE(executor_.AwaitHeld());
      executor_.Complete(absl::InternalError("device 0 failed"));
    }
    EXPECT_EQ(num_told, 1);
  }

  CallersThread tasks_;
};

TEST_F(ErrorRpcTest, ARequestsMemoryIsFreeBeforeItsCallerHears) {
  ExpectFree(GoodRequest(kForwardFp16, {1000}), 1);
}

// Two chunks were on their way.
TEST_F(ErrorRpcTest, ALargeRequestsMemoryIsFreeBeforeItsCallerHears) {
  ExpectFree(GoodRequest(kForwardFp16, {1'000'000}), 2);
}

}  // namespace
}  // namespace swiglu::server
