// SPDX-License-Identifier: Apache-2.0
//
// Requests that are too large for one batch, over a real connection: how they are cut and put
// together again, how each way to end meets chunks at every step, and that others are served in
// between. With either kind of executor: one that wants its inputs whole, and one that reads them
// out of the pieces in which they were received.
#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/batching/mlp_models.h"
#include "tests/rpc/calls.h"

namespace swiglu::server {
namespace {

using absl::StatusCode;
using inference::ModelInferRequest;
using inference::ModelInferResponse;
using testing::UnorderedElementsAre;

// 256 elements of FP16 forward: two inputs of two bytes each.
constexpr int64_t kMaxBatchBytes = 1'024;

// 1,000 elements: three chunks of 256 and one of 232, whose bytes tell their places apart.
ModelInferRequest LargeRequest(const std::string& id = "large") {
  ModelInferRequest request = GoodRequest(kForwardFp16, {1'000});
  request.set_id(id);
  for (std::string& input : *request.mutable_raw_input_contents()) {
    for (size_t i = 0; i < input.size(); ++i) {
      input[i] = static_cast<char>(i * 2654435761u >> 13) + id.back();
    }
  }
  return request;
}

// The executor gives input k as output k.
void ExpectEcho(const ModelInferRequest& request, const ModelInferResponse& response) {
  EXPECT_EQ(response.id(), request.id());
  ASSERT_GT(response.raw_output_contents_size(), 0);
  for (int k = 0; k < response.raw_output_contents_size(); ++k) {
    EXPECT_TRUE(response.raw_output_contents(k) == request.raw_input_contents(k)) << k;
  }
}

class ChunksRpcTest : public testing::TestWithParam<InputForm> {
 protected:
  // Ends a test: nothing is left behind, and the server serves on.
  ~ChunksRpcTest() override {
    executor_->Release();
    if (!server_->admission.draining()) ExpectServes();
    EXPECT_TRUE(server_->AwaitIdle());
    EXPECT_TRUE(Eventually([this] { return num_slabs() == 0; }));
    EXPECT_EQ(server_->active().WaitUntilNone(kPatience), 0);
  }

  void Start(int num_lanes) {
    executor_ = std::make_unique<HoldingExecutor>(num_lanes, kMaxBatchBytes, GetParam());
    TestServerOptions options;
    options.io_threads = 1;  // AwaitAllHeard
    options.other_models = MlpModels("tiny", 1, 48);
    server_ = std::make_unique<TestServer>(executor_.get(), options);
  }
  void ExpectServes() {
    const ModelInferRequest request = LargeRequest("another");
    const auto result = Infer(*server_, request);
    ASSERT_TRUE(result.status.ok()) << result.status.error_message();
    ExpectEcho(request, result.response);
  }
  int num_slabs() { return executor_->counting_pool().num_live(); }
  // Waits until so many chunks have their slabs, and are queued or run.
  bool AwaitSlabs(int count) {
    const bool are_there = Eventually([this, count] { return num_slabs() == count; });
    // A chunk has its slab before it is queued, on the thread that hears these calls later.
    AwaitAllHeard(*server_);
    return are_there;
  }
  // Elements of each batch that has ended, in the order in which they did.
  std::vector<int64_t> BatchElements() {
    std::vector<int64_t> elements;
    for (const BatchRecord& batch : server_->observer.batches()) {
      elements.push_back(batch.num_elements);
    }
    return elements;
  }
  // The one request so far ended with `code`, and was counted once.
  void ExpectOneRecord(StatusCode code) {
    EXPECT_EQ(server_->observer.AwaitCodes(1), std::vector<StatusCode>{code});
  }

  std::unique_ptr<HoldingExecutor> executor_;
  std::unique_ptr<TestServer> server_;
};

INSTANTIATE_TEST_SUITE_P(, ChunksRpcTest, testing::Values(InputForm::kWhole, InputForm::kInPieces),
                         [](const auto& param_info) {
                           return param_info.param == InputForm::kWhole ? "Whole" : "InPieces";
                         });

// --- Cutting and putting together

TEST_P(ChunksRpcTest, PutsTheAnswerTogetherAndReportsOnce) {
  Start(1);
  executor_->Release();
  const ModelInferRequest request = LargeRequest();
  const auto result = Infer(*server_, request);
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  ExpectEcho(request, result.response);
  EXPECT_THAT(BatchElements(), UnorderedElementsAre(256, 256, 256, 232));

  const std::vector<RequestRecord> records = server_->observer.AwaitFinished(1);
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].status.code(), StatusCode::kOk);
  EXPECT_EQ(records[0].num_elements, 1'000);
  EXPECT_EQ(records[0].bytes_in, static_cast<int64_t>(request.ByteSizeLong()));
  EXPECT_EQ(records[0].bytes_out, static_cast<int64_t>(result.response.ByteSizeLong()));
  EXPECT_TRUE(server_->observer.AwaitRejected(0).empty());
}

TEST_P(ChunksRpcTest, CutsBetweenRows) {
  Start(1);
  executor_->Release();
  // 512 elements of its one input fit, of which 384 are whole rows and aligned.
  ModelInferRequest request = GoodRequest(*server_->models.Find("mlp_tiny_0_forward"), {5, 5, 48});
  std::string& x = *request.mutable_raw_input_contents(0);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<char>(i * 2654435761u >> 13);
  const auto result = Infer(*server_, request);
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  EXPECT_EQ(result.response.model_name(), "mlp_tiny_0_forward");
  EXPECT_EQ(result.response.outputs(0).ShortDebugString(),
            "name: \"y\" datatype: \"BF16\" shape: 5 shape: 5 shape: 48");
  ExpectEcho(request, result.response);
  EXPECT_THAT(BatchElements(), UnorderedElementsAre(8 * 48, 8 * 48, 8 * 48, 48));
}

// Four chunks wait for two lanes beside each other.
TEST_P(ChunksRpcTest, WaitsNoLongerThanItTook) {
  constexpr std::chrono::milliseconds kHeld{30};
  Start(2);
  const ModelInferRequest small = GoodRequest(kForwardFp16, {256});
  BackgroundInfer first(*server_, small), second(*server_, small);
  ASSERT_TRUE(executor_->AwaitHeld(2));
  const ModelInferRequest request = LargeRequest();
  BackgroundInfer large(*server_, request);
  ASSERT_TRUE(Eventually([this] { return server_->batcher().outstanding_requests() == 2 + 4; }));
  Pass(kHeld);
  executor_->Release();
  EXPECT_TRUE(first.Wait().status.ok());
  EXPECT_TRUE(second.Wait().status.ok());
  EXPECT_TRUE(large.Wait().status.ok());

  for (const RequestRecord& record : server_->observer.AwaitFinished(3)) {
    if (record.num_elements != 1'000) continue;
    EXPECT_GE(record.times.queue, kHeld);
    EXPECT_LE(record.times.queue, record.ended - record.started);
  }
}

TEST_P(ChunksRpcTest, PutsEveryOutputTogether) {
  Start(1);
  executor_->Release();
  ModelInferRequest request = GoodRequest(kBackwardBf16, {300});
  for (int k = 0; k < 3; ++k) {
    std::string& input = *request.mutable_raw_input_contents(k);
    for (size_t i = 0; i < input.size(); ++i) input[i] = static_cast<char>(i * (k + 3) >> 2);
  }
  const auto result = Infer(*server_, request);
  ASSERT_EQ(result.response.raw_output_contents_size(), 3);
  ExpectEcho(request, result.response);
  EXPECT_THAT(BatchElements(), UnorderedElementsAre(128, 128, 44));
}

TEST_P(ChunksRpcTest, PutsChunksInOrderInWhichOrderTheyEnd) {
  Start(4);
  BackgroundInfer large(*server_, LargeRequest());
  ASSERT_TRUE(executor_->AwaitHeld(4));
  executor_->Complete(absl::OkStatus(), 2);
  executor_->Complete(absl::OkStatus(), 0);
  executor_->Complete(absl::OkStatus(), 1);
  executor_->Complete();
  ASSERT_TRUE(large.Wait().status.ok());
  ExpectEcho(LargeRequest(), large.Wait().response);
}

TEST_P(ChunksRpcTest, KeepsFewUnderWay) {
  Start(1);
  BackgroundInfer large(*server_, LargeRequest());
  // One is executing, one waits for the lane; those that are done keep their slabs.
  ASSERT_TRUE(executor_->AwaitHeld());
  for (int num_done = 0; num_done <= 2; ++num_done) {
    ASSERT_TRUE(AwaitSlabs(num_done + 2));
    EXPECT_EQ(num_slabs(), num_done + 2);
    executor_->Complete();
    ASSERT_TRUE(executor_->AwaitHeld());
  }
  executor_->Release();
  EXPECT_TRUE(large.Wait().status.ok());
}

TEST_P(ChunksRpcTest, AnswersOverAStream) {
  Start(2);
  executor_->Release();
  InferStream stream(*server_);
  const std::vector<std::string> ids = {"a", "b", "c"};
  for (const std::string& id : ids) stream.Send(LargeRequest(id));
  stream.HalfClose();
  std::vector<std::string> answered;
  for (size_t i = 0; i < ids.size(); ++i) {
    const inference::ModelStreamInferResponse answer = stream.Receive();
    EXPECT_EQ(answer.error_message(), "");
    answered.push_back(answer.infer_response().id());
    ExpectEcho(LargeRequest(answered.back()), answer.infer_response());
  }
  EXPECT_TRUE(stream.Finish().ok());
  std::sort(answered.begin(), answered.end());
  EXPECT_EQ(answered, ids);
}

TEST_P(ChunksRpcTest, LetsASmallRequestInBetween) {
  Start(1);
  BackgroundInfer large(*server_, LargeRequest());
  ASSERT_TRUE(executor_->AwaitHeld());
  BackgroundInfer small(*server_, GoodRequest(kForwardFp16, {4}));
  ASSERT_TRUE(Eventually([this] { return server_->admission.queued_requests() == 1; }));
  AwaitAllHeard(*server_);
  executor_->Complete();
  ASSERT_TRUE(executor_->AwaitHeld());
  executor_->Complete();
  EXPECT_TRUE(small.Wait().status.ok());
  EXPECT_EQ(BatchElements(), (std::vector<int64_t>{256, 4}));
  executor_->Release();
  EXPECT_TRUE(large.Wait().status.ok());
}

// --- What is held

// Slots of 512 bytes: one for the output, or two for the inputs and the output over one of them.
TEST_P(ChunksRpcTest, ChargesAllChunksAtOnceAndGivesThemBack) {
  Start(1);
  const int64_t slab_bytes = (GetParam() == InputForm::kWhole ? 2 : 1) * 4 * 512;
  const int64_t message_bytes = static_cast<int64_t>(LargeRequest().ByteSizeLong());
  BackgroundInfer large(*server_, LargeRequest());
  for (int chunk = 0; chunk < 3; ++chunk) {
    ASSERT_TRUE(executor_->AwaitHeld());
    EXPECT_EQ(server_->admission.used_bytes(MemoryKind::kStaging), slab_bytes);
    EXPECT_EQ(server_->admission.used_bytes(MemoryKind::kResponse), 0);
    executor_->Complete();
  }
  ASSERT_TRUE(executor_->AwaitHeld());
  // The message goes as soon as nothing is to be read out of it.
  EXPECT_EQ(server_->admission.used_bytes(MemoryKind::kReceive),
            GetParam() == InputForm::kWhole ? 0 : message_bytes);
  executor_->Complete();
  EXPECT_TRUE(large.Wait().status.ok());
  EXPECT_TRUE(server_->AwaitIdle());
}

// --- Each way to end

TEST_P(ChunksRpcTest, RunsNoMoreOnceItIsCancelled) {
  Start(1);
  BackgroundInfer large(*server_, LargeRequest());
  ASSERT_TRUE(executor_->AwaitHeld());
  ASSERT_TRUE(AwaitSlabs(2));
  large.Cancel();
  EXPECT_EQ(large.Wait().status.error_code(), grpc::StatusCode::CANCELLED);
  AwaitAllHeard(*server_);
  executor_->Complete();
  ExpectOneRecord(StatusCode::kCancelled);
  EXPECT_EQ(server_->observer.AwaitRejected(1), std::vector<Rejection>{Rejection::kCancelled});
  EXPECT_EQ(executor_->batch_sizes(), std::vector<size_t>{1});
}

TEST_P(ChunksRpcTest, RunsNoMoreOnceItsDeadlineHasPassed) {
  Start(1);
  ModelInferRequest request = LargeRequest();
  const auto timeout = std::chrono::milliseconds(300);
  (*request.mutable_parameters())["timeout"].set_int64_param(
      std::chrono::microseconds(timeout).count());
  BackgroundInfer large(*server_, request);
  ASSERT_TRUE(executor_->AwaitHeld());
  const Clock::time_point passed = Clock::now() + timeout;
  ASSERT_TRUE(Eventually([passed] { return Clock::now() > passed; }));
  executor_->Complete();
  EXPECT_CALL_STATUS(large.Wait().status, grpc::StatusCode::DEADLINE_EXCEEDED,
                     "deadline passed before execution");
  ExpectOneRecord(StatusCode::kDeadlineExceeded);
  EXPECT_EQ(server_->observer.AwaitRejected(1), std::vector<Rejection>{Rejection::kDeadline});
  EXPECT_EQ(executor_->batch_sizes(), std::vector<size_t>{1});
}

TEST_P(ChunksRpcTest, TellsTheFirstErrorOnceAllThatRunsHasEnded) {
  Start(2);
  BackgroundInfer large(*server_, LargeRequest());
  ASSERT_TRUE(executor_->AwaitHeld(2));
  // Both lanes hold a chunk, and the other two wait for them.
  ASSERT_TRUE(AwaitSlabs(4));
  executor_->Complete(absl::InternalError("device 0 failed"));
  ASSERT_TRUE(executor_->AwaitHeld(2));
  // The first error is what the caller is told, once all that runs has ended.
  executor_->Complete(absl::InternalError("device 1 failed"));
  ASSERT_TRUE(executor_->AwaitHeld(2));
  AwaitAllHeard(*server_);
  EXPECT_EQ(server_->observer.num_finished(), 0u);
  executor_->Release();
  EXPECT_CALL_STATUS(large.Wait().status, grpc::StatusCode::INTERNAL, "device 0 failed");
  ExpectOneRecord(StatusCode::kInternal);
  EXPECT_TRUE(server_->observer.AwaitRejected(0).empty());
}

TEST_P(ChunksRpcTest, StartsNoChunkAfterAnError) {
  Start(1);
  BackgroundInfer large(*server_, LargeRequest());
  ASSERT_TRUE(executor_->AwaitHeld());
  ASSERT_TRUE(AwaitSlabs(2));
  executor_->Complete(absl::InternalError("device 0 failed"));
  executor_->Release();
  EXPECT_CALL_STATUS(large.Wait().status, grpc::StatusCode::INTERNAL, "device 0 failed");
  // The second was on its way when the first failed.
  EXPECT_EQ(executor_->batch_sizes(), (std::vector<size_t>{1, 1}));
}

TEST_P(ChunksRpcTest, EndsWhenTheMemoryForAChunkCannotBeHad) {
  Start(1);
  BackgroundInfer large(*server_, LargeRequest());
  ASSERT_TRUE(executor_->AwaitHeld());
  ASSERT_TRUE(AwaitSlabs(2));
  executor_->counting_pool().SetFailing(true);
  executor_->Complete();
  ASSERT_TRUE(executor_->AwaitHeld());
  AwaitAllHeard(*server_);
  // It waits for the chunk that is executing.
  EXPECT_EQ(server_->observer.num_finished(), 0u);
  executor_->Complete();
  EXPECT_CALL_STATUS(large.Wait().status, grpc::StatusCode::RESOURCE_EXHAUSTED,
                     "no memory for the test");
  ExpectOneRecord(StatusCode::kResourceExhausted);
  EXPECT_EQ(executor_->batch_sizes(), (std::vector<size_t>{1, 1}));
  executor_->counting_pool().SetFailing(false);
}

TEST_P(ChunksRpcTest, EndsWhenTheMemoryForItsFirstChunkCannotBeHad) {
  Start(1);
  executor_->counting_pool().SetFailing(true);
  EXPECT_CALL_STATUS(Infer(*server_, LargeRequest()).status, grpc::StatusCode::RESOURCE_EXHAUSTED,
                     "no memory for the test");
  ExpectOneRecord(StatusCode::kResourceExhausted);
  EXPECT_TRUE(executor_->batch_sizes().empty());
  executor_->counting_pool().SetFailing(false);
}

TEST_P(ChunksRpcTest, FailsAloneOnItsStream) {
  Start(1);
  InferStream stream(*server_);
  stream.Send(LargeRequest("fails"));
  ASSERT_TRUE(executor_->AwaitHeld());
  ASSERT_TRUE(AwaitSlabs(2));
  executor_->Complete(absl::InternalError("device 0 failed"));
  executor_->Release();
  const inference::ModelStreamInferResponse failed = stream.Receive();
  EXPECT_EQ(failed.error_message(), "device 0 failed");
  EXPECT_EQ(failed.infer_response().id(), "fails");
  stream.Send(LargeRequest("works"));
  ExpectEcho(LargeRequest("works"), stream.Receive().infer_response());
  stream.HalfClose();
  EXPECT_TRUE(stream.Finish().ok());
}

TEST_P(ChunksRpcTest, RunsNoMoreOnceItsStreamIsCancelled) {
  Start(1);
  InferStream stream(*server_);
  stream.Send(LargeRequest());
  ASSERT_TRUE(executor_->AwaitHeld());
  ASSERT_TRUE(AwaitSlabs(2));
  stream.Cancel();
  EXPECT_EQ(stream.Finish().error_code(), grpc::StatusCode::CANCELLED);
  AwaitAllHeard(*server_);
  executor_->Complete();
  ExpectOneRecord(StatusCode::kCancelled);
  EXPECT_EQ(executor_->batch_sizes(), std::vector<size_t>{1});
}

TEST_P(ChunksRpcTest, IsFinishedByADrain) {
  Start(1);
  BackgroundInfer large(*server_, LargeRequest());
  ASSERT_TRUE(executor_->AwaitHeld());
  server_->StartDrain();
  EXPECT_CALL_STATUS(Infer(*server_, LargeRequest()).status, grpc::StatusCode::UNAVAILABLE,
                     "server is draining");
  EXPECT_EQ(server_->active().WaitUntilNone(absl::ZeroDuration()), 1);
  executor_->Release();
  ASSERT_TRUE(large.Wait().status.ok()) << large.Wait().status.error_message();
  ExpectEcho(LargeRequest(), large.Wait().response);
  EXPECT_EQ(server_->active().WaitUntilNone(kPatience), 0);
}

TEST_P(ChunksRpcTest, SurvivesAShutdownThatCutsItOff) {
  Start(1);
  BackgroundInfer large(*server_, LargeRequest());
  ASSERT_TRUE(executor_->AwaitHeld());
  server_->admission.StartDrain();
  std::thread device([&] {
    EXPECT_FALSE(large.Wait().status.ok());
    executor_->Release();
  });
  server_->rpc->Shutdown(absl::ZeroDuration());
  device.join();
  EXPECT_EQ(server_->observer.AwaitFinished(1).size(), 1u);
}

}  // namespace
}  // namespace swiglu::server
