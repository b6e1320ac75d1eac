// SPDX-License-Identifier: Apache-2.0
//
// What becomes of requests in the queue, over a real connection, while every lane is busy: they end
// at their deadline or when their callers go, they leave their places, and the urgent go first.
#include <chrono>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "tests/rpc/calls.h"

namespace swiglu::server {
namespace {

using inference::ModelInferRequest;

constexpr int kPlaces = 8;

class QueueRpcTest : public HoldingServerTest {
 protected:
  QueueRpcTest() : HoldingServerTest(1, FewPlaces()) {}

  static TestServerOptions FewPlaces() {
    TestServerOptions options;
    options.admission.max_queued_requests = kPlaces;
    return options;
  }
  bool AwaitQueued(int64_t count) {
    return Eventually([this, count] { return server_.admission.queued_requests() == count; });
  }

  const ModelInferRequest request_ = GoodRequest(kForwardFp16, {4});
};

TEST_F(QueueRpcTest, APlaceIsFreeWhenItsCallerHasGone) {
  BackgroundInfer executing(server_, request_);
  ASSERT_TRUE(executor_.AwaitHeld());
  std::vector<std::unique_ptr<BackgroundInfer>> cancelled;
  for (int i = 0; i < kPlaces; ++i) {
    cancelled.push_back(std::make_unique<BackgroundInfer>(server_, request_));
  }
  ASSERT_TRUE(AwaitQueued(kPlaces));
  EXPECT_CALL_STATUS(Infer(server_, request_).status, grpc::StatusCode::UNAVAILABLE,
                     "queue is full: 8 requests");
  for (const auto& infer : cancelled) infer->Cancel();
  ASSERT_TRUE(AwaitQueued(0));
  std::vector<Rejection> reasons(kPlaces, Rejection::kCancelled);
  reasons.insert(reasons.begin(), Rejection::kQueueFull);
  EXPECT_EQ(server_.observer.AwaitRejected(kPlaces + 1), reasons);

  BackgroundInfer live(server_, request_);
  ASSERT_TRUE(AwaitQueued(1));
  executor_.Release();
  EXPECT_TRUE(live.Wait().status.ok()) << live.Wait().status.error_message();
}

TEST_F(QueueRpcTest, AStreamThatIsCancelledLeavesAllOfItsPlaces) {
  InferStream stream(server_);
  stream.Send(request_);
  ASSERT_TRUE(executor_.AwaitHeld());
  for (int i = 0; i < kPlaces; ++i) stream.Send(request_);
  ASSERT_TRUE(AwaitQueued(kPlaces));
  stream.Cancel();
  EXPECT_TRUE(AwaitQueued(0));
  EXPECT_EQ(executor_.batch_sizes(), std::vector<size_t>{1});
}

TEST_F(QueueRpcTest, AStreamsRequestIsAnsweredAtItsTimeout) {
  InferStream stream(server_);
  stream.Send(request_);
  ASSERT_TRUE(executor_.AwaitHeld());
  ModelInferRequest hasty = request_;
  (*hasty.mutable_parameters())["timeout"].set_int64_param(50'000);
  stream.Send(hasty);
  EXPECT_EQ(stream.Receive().error_message(), "deadline passed before execution");
  executor_.Release();
  EXPECT_EQ(stream.Receive().error_message(), "");
  stream.HalfClose();
  EXPECT_TRUE(stream.Finish().ok());
}

// The parameter 1 goes first and 3 last, whatever came first.
TEST_F(QueueRpcTest, TheMoreUrgentRequestIsExecutedFirst) {
  BackgroundInfer executing(server_, request_);
  ASSERT_TRUE(executor_.AwaitHeld());
  const struct {
    const char* model;
    int priority;
  } waiting[] = {
      {"swiglu_forward_fp32", 3}, {"swiglu_forward_bf16", 2}, {"swiglu_backward_fp16", 1}};
  std::vector<std::unique_ptr<BackgroundInfer>> infers;
  for (const auto& w : waiting) {
    ModelInferRequest request = GoodRequest(w.model, {4});
    (*request.mutable_parameters())["priority"].set_int64_param(w.priority);
    infers.push_back(std::make_unique<BackgroundInfer>(server_, request));
    // A request has its place in the queue before it stands there.
    ASSERT_TRUE(Eventually([&] {
      return server_.batcher().outstanding_requests() == static_cast<int64_t>(infers.size()) + 1;
    }));
  }
  for (size_t i = 0; i < 4; ++i) {
    ASSERT_TRUE(executor_.AwaitHeld());
    executor_.Complete();
    // They end on several threads.
    ASSERT_EQ(server_.observer.AwaitFinished(i + 1).size(), i + 1);
  }
  const std::vector<RequestRecord> records = server_.observer.AwaitFinished(4);
  ASSERT_EQ(records.size(), 4u);
  EXPECT_EQ(records[1].model->name, "swiglu_backward_fp16");
  EXPECT_EQ(records[2].model->name, "swiglu_forward_bf16");
  EXPECT_EQ(records[3].model->name, "swiglu_forward_fp32");
}

TEST(CompanyRpcTest, ATimeoutEndsTheWaitForOthersToRunWith) {
  HoldingExecutor executor;
  TestServerOptions options;
  options.batching.max_queue_delay = std::chrono::hours(1);
  TestServer server(&executor, options);
  ModelInferRequest request = GoodRequest(kForwardFp16, {4});
  (*request.mutable_parameters())["timeout"].set_int64_param(50'000);
  EXPECT_CALL_STATUS(Infer(server, request).status, grpc::StatusCode::DEADLINE_EXCEEDED,
                     "deadline passed before execution");
  EXPECT_EQ(server.observer.AwaitRejected(1), std::vector<Rejection>{Rejection::kDeadline});
  EXPECT_TRUE(server.AwaitIdle());
  EXPECT_TRUE(executor.batch_sizes().empty());
}

}  // namespace
}  // namespace swiglu::server
