// SPDX-License-Identifier: Apache-2.0
//
// A device that never answers, over a real connection: whatever asks no computation is answered,
// what does is refused once the queue is full, and a drain gives up with the number cut off.
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "tests/rpc/server_fixture.h"

namespace swiglu::server {
namespace {

using absl::StatusCode;
using inference::ModelInferRequest;

class HangRpcTest : public HoldingServerTest {
 protected:
  HangRpcTest() : HoldingServerTest(2, SmallQueue()) {
    // One in each lane, and the queue full.
    for (size_t lane = 1; lane <= 2; ++lane) {
      Begin();
      EXPECT_TRUE(executor_.AwaitHeld(lane));
    }
    for (int64_t queued = 1; queued <= 3; ++queued) {
      Begin();
      EXPECT_TRUE(
          Eventually([this, queued] { return server_.admission.queued_requests() == queued; }));
    }
  }

  static TestServerOptions SmallQueue() {
    TestServerOptions options;
    options.admission.max_queued_requests = 3;
    return options;
  }
  void Begin() { hanging_.push_back(std::make_unique<BackgroundInfer>(server_, request_)); }

  const ModelInferRequest request_ = GoodRequest(kForwardFp16, {4});
  std::vector<std::unique_ptr<BackgroundInfer>> hanging_;
};

TEST_F(HangRpcTest, AnswersWhatNeedsNoDevice) {
  PatientContext check_context;
  grpc::health::v1::HealthCheckResponse health;
  ASSERT_TRUE(server_.health_stub->Check(&check_context, {}, &health).ok());
  EXPECT_EQ(health.status(), grpc::health::v1::HealthCheckResponse::SERVING);
  PatientContext live_context;
  inference::ServerLiveResponse live;
  ASSERT_TRUE(server_.stub->ServerLive(&live_context, {}, &live).ok());
  EXPECT_TRUE(live.live());
  executor_.Release();
}

TEST_F(HangRpcTest, TheFirstRequestWasAloneAndNoOtherIs) {
  const std::vector<bool> alone = executor_.alone();
  ASSERT_EQ(alone.size(), 2u);
  EXPECT_TRUE(alone[0]);
  EXPECT_FALSE(alone[1]);
  executor_.Release();
}

TEST_F(HangRpcTest, RefusesMoreThanTheQueueHolds) {
  EXPECT_CALL_STATUS(Infer(server_, request_).status, grpc::StatusCode::UNAVAILABLE,
                     "queue is full: 3 requests");
  executor_.Release();
  for (const auto& request : hanging_) EXPECT_TRUE(request->Wait().status.ok());
}

TEST_F(HangRpcTest, DrainGivesUpWithTheNumberThatIsCutOff) {
  server_.StartDrain();
  EXPECT_EQ(server_.active().WaitUntilNone(absl::Milliseconds(20)), 5);
  executor_.Release();
  EXPECT_EQ(server_.active().WaitUntilNone(kPatience), 0);
  EXPECT_EQ(server_.observer.AwaitCodes(5), (std::vector<StatusCode>(5, StatusCode::kOk)));
}

TEST_F(HangRpcTest, FreesQueuedRequestsOfCallersThatGoWithoutTheDevice) {
  for (const auto& request : hanging_) request->Cancel();
  for (const auto& request : hanging_) {
    EXPECT_EQ(request->Wait().status.error_code(), grpc::StatusCode::CANCELLED);
  }
  // The other two are in the device's hands.
  EXPECT_EQ(server_.observer.AwaitFinished(3).size(), 3u);
  EXPECT_EQ(server_.admission.queued_requests(), 0);
  executor_.Release();
  EXPECT_EQ(server_.observer.AwaitFinished(5).size(), 5u);
}

}  // namespace
}  // namespace swiglu::server
