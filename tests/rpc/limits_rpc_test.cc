// SPDX-License-Identifier: Apache-2.0
//
// Every limit of the server over a real connection: its code, its sentence, whether a retry is
// invited, how it is counted, and that afterwards nothing stays charged and the next request is
// served.
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/codec/errors.h"
#include "tests/rpc/calls.h"

namespace swiglu::server {
namespace {

using inference::ModelInferRequest;

class LimitsRpcTest : public testing::Test {
 protected:
  // Every test ends here: the server is as good as new.
  void TearDown() override {
    executor_.Release();
    EXPECT_TRUE(server_->AwaitIdle());
    EXPECT_TRUE(Infer(*server_, GoodRequest(kForwardFp16, {4})).status.ok());
    EXPECT_TRUE(server_->AwaitIdle());
    EXPECT_TRUE(Eventually([this] { return executor_.counting_pool().num_live() == 0; }));
    EXPECT_EQ(server_->active().WaitUntilNone(kPatience), 0);
  }

  void StartServer(AdmissionOptions admission, InferServiceOptions infer = {}) {
    TestServerOptions options;
    options.admission = admission;
    options.infer = infer;
    server_ = std::make_unique<TestServer>(&executor_, options);
  }

  // One request is refused in these words; it is counted once, as `reason`.
  void ExpectRefused(const ModelInferRequest& request, grpc::StatusCode code,
                     const std::string& message, std::vector<Rejection> reasons) {
    const size_t num_before = server_->observer.num_finished();
    const auto refused = Infer(*server_, request);
    EXPECT_CALL_STATUS(refused.status, code, message);
    const std::vector<RequestRecord> records = server_->observer.AwaitFinished(num_before + 1);
    EXPECT_EQ(static_cast<int>(records.back().status.code()), static_cast<int>(code));
    EXPECT_EQ(server_->observer.AwaitRejected(reasons.size()), reasons);

    std::vector<std::string> pushbacks;
    const auto [begin, end] = refused.trailers.equal_range("grpc-retry-pushback-ms");
    for (auto it = begin; it != end; ++it) pushbacks.push_back(it->second);
    EXPECT_EQ(pushbacks, code == grpc::StatusCode::UNAVAILABLE ? std::vector<std::string>{"100"}
                                                               : std::vector<std::string>{});
    EXPECT_EQ(server_->observer.num_retries_advised(), static_cast<int>(pushbacks.size()));
  }

  HoldingExecutor executor_;
  std::unique_ptr<TestServer> server_;
};

TEST_F(LimitsRpcTest, RefusesWhenTheQueueIsFull) {
  StartServer({.max_queued_requests = 2});
  const ModelInferRequest request = GoodRequest(kForwardFp16, {4});
  BackgroundInfer executing(*server_, request);
  ASSERT_TRUE(executor_.AwaitHeld());
  BackgroundInfer queued(*server_, request);
  BackgroundInfer queued_too(*server_, request);
  ASSERT_TRUE(Eventually([this] { return server_->admission.queued_requests() == 2; }));
  ExpectRefused(request, grpc::StatusCode::UNAVAILABLE, "queue is full: 2 requests",
                {Rejection::kQueueFull});

  executor_.Release();
  EXPECT_TRUE(executing.Wait().status.ok());
  EXPECT_TRUE(queued.Wait().status.ok());
  EXPECT_TRUE(queued_too.Wait().status.ok());
}

TEST_F(LimitsRpcTest, RefusesWhileTheBudgetIsInUse) {
  // Two tensors of 1,024 bytes: one slab fits into its half, and no second one.
  StartServer({.memory_budget_bytes = 6'000});
  const ModelInferRequest request = GoodRequest(kForwardFp16, {512});
  BackgroundInfer executing(*server_, request);
  ASSERT_TRUE(executor_.AwaitHeld());
  EXPECT_TRUE(
      Eventually([this] { return server_->admission.used_bytes(MemoryKind::kReceive) == 0; }));
  EXPECT_EQ(server_->admission.used_bytes(MemoryKind::kStaging), 2048);
  ExpectRefused(request, grpc::StatusCode::UNAVAILABLE, "memory budget of 6000 bytes is in use",
                {Rejection::kBudget});
  // A smaller one still fits.
  BackgroundInfer small(*server_, GoodRequest(kForwardFp16, {4}));
  EXPECT_TRUE(Eventually([this] { return server_->admission.queued_requests() == 1; }));

  executor_.Release();
  EXPECT_TRUE(executing.Wait().status.ok());
  EXPECT_TRUE(small.Wait().status.ok());
  EXPECT_TRUE(server_->AwaitIdle());
  EXPECT_TRUE(Infer(*server_, request).status.ok());
}

TEST_F(LimitsRpcTest, RefusesForGoodWhatTheBudgetCanNeverHold) {
  StartServer({.memory_budget_bytes = 6'000});
  const ModelInferRequest request = GoodRequest(kForwardFp16, {2048});
  ExpectRefused(request, grpc::StatusCode::RESOURCE_EXHAUSTED,
                "request needs " + std::to_string(request.ByteSizeLong()) +
                    " bytes at once; half of the memory budget of 6000 bytes is the most",
                {Rejection::kTooLarge});
}

// The message fits, but not its tensors, each rounded up to where the next may begin.
TEST_F(LimitsRpcTest, RefusesForGoodWhatNeedsTooLargeASlab) {
  StartServer({.memory_budget_bytes = 2'000});
  ExpectRefused(GoodRequest(kForwardFp16, {129}), grpc::StatusCode::RESOURCE_EXHAUSTED,
                "request needs 1024 bytes at once; half of the memory budget of 2000 bytes is the "
                "most",
                {Rejection::kTooLarge});
}

TEST_F(LimitsRpcTest, RefusesAMessageOverTheLimit) {
  StartServer({}, {.max_request_bytes = 1'000});
  const ModelInferRequest request = GoodRequest(kForwardFp16, {250});
  const std::string size = std::to_string(request.ByteSizeLong());
  ExpectRefused(request, grpc::StatusCode::RESOURCE_EXHAUSTED,
                "request of " + size + " bytes exceeds max_request_bytes 1000",
                {Rejection::kTooLarge});
}

// The names of backward's outputs make its response a few bytes larger than its request.
TEST_F(LimitsRpcTest, RefusesARequestWhoseResponseIsOverTheLimit) {
  const ModelInferRequest request = GoodRequest(kBackwardBf16, {16});
  const auto size = static_cast<int64_t>(request.ByteSizeLong());
  StartServer({}, {.max_request_bytes = size});
  ExpectRefused(request, grpc::StatusCode::RESOURCE_EXHAUSTED,
                "response of " + std::to_string(size + 4) + " bytes exceeds max_request_bytes " +
                    std::to_string(size),
                {Rejection::kTooLarge});
}

TEST_F(LimitsRpcTest, RefusesAnEnvelopeOverItsLimit) {
  StartServer({});
  ModelInferRequest request = GoodRequest(kForwardFp16, {4});
  request.set_id(std::string(65536, 'x'));
  ExpectRefused(request, grpc::StatusCode::RESOURCE_EXHAUSTED,
                "request has more than 65536 bytes beside its tensors", {Rejection::kTooLarge});
}

TEST_F(LimitsRpcTest, ServesAMessageOfExactlyTheLimit) {
  const ModelInferRequest request = GoodRequest(kForwardFp16, {250});
  executor_.Release();
  StartServer({}, {.max_request_bytes = static_cast<int64_t>(request.ByteSizeLong())});
  EXPECT_TRUE(Infer(*server_, request).status.ok());
}

TEST_F(LimitsRpcTest, RefusesAnAnnouncedMessageBeforeItsPayload) {
  StartServer({}, {.max_request_bytes = 1'000});
  RawCall call(*server_, kInferMethod, {{"swiglu-request-bytes", "1001"}});
  // Nothing was sent but headers.
  EXPECT_CALL_STATUS(call.Finish(), grpc::StatusCode::RESOURCE_EXHAUSTED,
                     "request of 1001 bytes exceeds max_request_bytes 1000");
  EXPECT_EQ(call.trailers().count("grpc-retry-pushback-ms"), 0u);
  EXPECT_EQ(server_->observer.AwaitCodes(1),
            std::vector<absl::StatusCode>{absl::StatusCode::kResourceExhausted});
  EXPECT_EQ(server_->observer.AwaitRejected(1), std::vector<Rejection>{Rejection::kTooLarge});
}

TEST_F(LimitsRpcTest, RefusesAnAnnouncedMessageThatCanNeverFit) {
  StartServer({.memory_budget_bytes = 6'000});
  RawCall call(*server_, kInferMethod, {{"swiglu-request-bytes", "3001"}});
  EXPECT_CALL_STATUS(call.Finish(), grpc::StatusCode::RESOURCE_EXHAUSTED,
                     "request needs 3001 bytes at once; half of the memory budget of 6000 bytes is "
                     "the most");
}

// What is announced is reserved before it comes, and given back when it does not.
TEST_F(LimitsRpcTest, RefusesBeforeThePayloadWhileTheRoomForMessagesIsReserved) {
  StartServer({.memory_budget_bytes = 6'000});
  {
    RawCall announced(*server_, kInferMethod, {{"swiglu-request-bytes", "2000"}});
    ASSERT_TRUE(
        Eventually([this] { return server_->admission.used_bytes(MemoryKind::kReceive) == 2000; }));
    RawCall too_much(*server_, kInferMethod, {{"swiglu-request-bytes", "1001"}});
    EXPECT_CALL_STATUS(too_much.Finish(), grpc::StatusCode::UNAVAILABLE,
                       "memory budget of 6000 bytes is in use");
    EXPECT_EQ(too_much.trailers().count("grpc-retry-pushback-ms"), 1u);
    EXPECT_EQ(server_->observer.AwaitRejected(1), std::vector<Rejection>{Rejection::kBudget});
    RawCall fits(*server_, kInferMethod, {{"swiglu-request-bytes", "1000"}});
    ASSERT_TRUE(
        Eventually([this] { return server_->admission.used_bytes(MemoryKind::kReceive) == 3000; }));
    announced.Cancel();
    fits.Cancel();
  }
  EXPECT_TRUE(server_->AwaitIdle());
}

// Who announces nothing has a little reserved, whatever others sent before.
TEST_F(LimitsRpcTest, ReservesAFirstFewBytesForAnUnannouncedMessage) {
  executor_.Release();
  StartServer({});
  EXPECT_TRUE(Infer(*server_, GoodRequest(kForwardFp16, {100'000})).status.ok());
  EXPECT_TRUE(server_->AwaitIdle());
  RawCall silent(*server_, kInferMethod, {});
  EXPECT_TRUE(Eventually([&] {
    return server_->admission.used_bytes(MemoryKind::kReceive) ==
           server_->admission.first_message_bytes();
  }));
  silent.Cancel();
}

// It turns out larger than what was reserved for it.
TEST_F(LimitsRpcTest, RefusesAMessageThatOutgrowsItsReservation) {
  StartServer({.memory_budget_bytes = 6'000});
  RawCall other(*server_, kInferMethod, {{"swiglu-request-bytes", "2000"}});
  ASSERT_TRUE(
      Eventually([this] { return server_->admission.used_bytes(MemoryKind::kReceive) == 2000; }));
  RawCall liar(*server_, kInferMethod, {{"swiglu-request-bytes", "10"}});
  EXPECT_TRUE(liar.Write(GoodRequest(kForwardFp16, {400}).SerializeAsString()));
  EXPECT_CALL_STATUS(liar.Finish(), grpc::StatusCode::UNAVAILABLE,
                     "memory budget of 6000 bytes is in use");
  EXPECT_EQ(server_->admission.used_bytes(MemoryKind::kReceive), 2000);
  other.Cancel();
}

TEST_F(LimitsRpcTest, DoesNotTrustAnAnnouncement) {
  executor_.Release();
  StartServer({}, {.max_request_bytes = 1'000});
  for (const std::string announced : {"10", "-1", "many", ""}) {
    RawCall large(*server_, kInferMethod, {{"swiglu-request-bytes", announced}});
    EXPECT_TRUE(large.Write(GoodRequest(kForwardFp16, {250}).SerializeAsString()));
    EXPECT_EQ(large.Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << announced;
    RawCall small(*server_, kInferMethod, {{"swiglu-request-bytes", announced}});
    EXPECT_TRUE(small.Write(GoodRequest(kForwardFp16, {25}).SerializeAsString()));
    EXPECT_EQ(small.Finish().error_code(), grpc::StatusCode::OK) << announced;
  }
}

TEST_F(LimitsRpcTest, RefusesWithoutMemoryForASlab) {
  StartServer({});
  executor_.counting_pool().SetFailing(true);
  ExpectRefused(GoodRequest(kForwardFp16, {4}), grpc::StatusCode::RESOURCE_EXHAUSTED,
                "no memory for the test", {});
  EXPECT_TRUE(executor_.batch_sizes().empty());
  EXPECT_TRUE(server_->AwaitIdle());
  executor_.counting_pool().SetFailing(false);
}

// The budget may be free then.
TEST_F(LimitsRpcTest, SaysWhyAMessageIsRefusedBesideRefusedOnes) {
  StartServer({.memory_budget_bytes = 6'000});
  Overrun overrun;
  EXPECT_EQ(server_->infer().RefusalOf(overrun, {}).message(),
            "memory budget of 6000 bytes is in use");
  overrun.beside_refused = true;
  EXPECT_EQ(server_->infer().RefusalOf(overrun, {}).message(),
            "this connection still brings messages that were refused; try again when they are "
            "through");
  EXPECT_EQ(errors::RejectionOf(server_->infer().RefusalOf(overrun, {})), Rejection::kBudget);
}

TEST_F(LimitsRpcTest, PassesAnExecutorErrorOn) {
  StartServer({});
  BackgroundInfer executing(*server_, GoodRequest(kForwardFp16, {4}));
  ASSERT_TRUE(executor_.AwaitHeld());
  executor_.Complete(absl::InternalError("device 0 failed"));
  EXPECT_CALL_STATUS(executing.Wait().status, grpc::StatusCode::INTERNAL, "device 0 failed");
  EXPECT_EQ(executing.Wait().trailers.count("grpc-retry-pushback-ms"), 0u);
  EXPECT_EQ(server_->observer.AwaitCodes(1),
            std::vector<absl::StatusCode>{absl::StatusCode::kInternal});
  EXPECT_TRUE(server_->observer.AwaitRejected(0).empty());
}

TEST_F(LimitsRpcTest, AppliesToMessagesOfAStream) {
  StartServer({.memory_budget_bytes = 6'000}, {.max_request_bytes = 3'000});
  executor_.Release();
  InferStream stream(*server_);
  stream.Send(GoodRequest(kForwardFp16, {1024}));
  EXPECT_EQ(stream.Receive().error_message(),
            "request of " + std::to_string(GoodRequest(kForwardFp16, {1024}).ByteSizeLong()) +
                " bytes exceeds max_request_bytes 3000");
  stream.Send(GoodRequest(kForwardFp16, {512}));
  EXPECT_EQ(stream.Receive().error_message(), "");
  stream.HalfClose();
  EXPECT_TRUE(stream.Finish().ok());
}

}  // namespace
}  // namespace swiglu::server
