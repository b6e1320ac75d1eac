// SPDX-License-Identifier: Apache-2.0
//
// Callers that stop halfway, over a real connection: each holds its own share and no more, until
// its time is over; then the share is free, and everybody else was served all along. Callers that
// stop in the middle of a message are in tests/wire/stall_test.py, since no client library does
// that.
#include <chrono>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/rpc/calls.h"

namespace swiglu::server {
namespace {

using absl::StatusCode;
using inference::ModelInferRequest;

TestServerOptions Impatient() {
  TestServerOptions options;
  options.stall_limit = {std::chrono::milliseconds(100)};
  options.tick = absl::Milliseconds(10);
  // What a caller that announces nothing may send, and has the time for.
  options.infer.max_request_bytes = 20'000'000;
  return options;
}

class StallRpcTest : public HoldingServerTest {
 protected:
  StallRpcTest() : HoldingServerTest(1, Impatient()) { executor_.Release(); }

  // Its answer, of 8 MB, is more than a connection takes unread.
  const ModelInferRequest request_ = GoodRequest(kForwardFp16, {4'000'000});
};

TEST_F(StallRpcTest, EndsACallWhoseAnnouncedMessageDoesNotCome) {
  RawCall stalled(server_, kInferMethod, {{"swiglu-request-bytes", "100000"}});
  ASSERT_TRUE(
      Eventually([this] { return server_.admission.used_bytes(MemoryKind::kReceive) == 100'000; }));
  EXPECT_TRUE(Infer(server_, GoodRequest(kForwardFp16, {4})).status.ok());
  EXPECT_CALL_STATUS(stalled.Finish(), grpc::StatusCode::DEADLINE_EXCEEDED,
                     "the message did not come within 105ms");
  EXPECT_EQ(server_.admission.used_bytes(MemoryKind::kReceive), 0);
  EXPECT_EQ(server_.observer.AwaitCodes(2),
            (std::vector<StatusCode>{StatusCode::kOk, StatusCode::kDeadlineExceeded}));
  EXPECT_EQ(server_.observer.AwaitRejected(1), std::vector<Rejection>{Rejection::kDeadline});
}

TEST_F(StallRpcTest, EndsACallWhoseMessageDoesNotCome) {
  RawCall stalled(server_, kInferMethod);
  EXPECT_CALL_STATUS(stalled.Finish(), grpc::StatusCode::DEADLINE_EXCEEDED,
                     "the message did not come within 1.292s");
  EXPECT_EQ(server_.admission.used_bytes(MemoryKind::kReceive), 0);
}

TEST_F(StallRpcTest, EndsControlCallsWhoseMessageDoesNotCome) {
  for (const char* method :
       {"/inference.GRPCInferenceService/ServerLive", "/grpc.health.v1.Health/Watch"}) {
    RawCall stalled(server_, method);
    EXPECT_CALL_STATUS(stalled.Finish(), grpc::StatusCode::DEADLINE_EXCEEDED,
                       "the message did not come within 103ms");
  }
}

TEST_F(StallRpcTest, BreaksACallOffWhoseAnswerIsNotRead) {
  RawCall stalled(server_, kInferMethod);
  EXPECT_TRUE(stalled.Write(request_.SerializeAsString()));
  ASSERT_TRUE(
      Eventually([this] { return server_.admission.used_bytes(MemoryKind::kResponse) > 0; }));
  EXPECT_TRUE(Infer(server_, GoodRequest(kForwardFp16, {4})).status.ok());
  EXPECT_TRUE(server_.AwaitIdle());
  EXPECT_EQ(server_.active().WaitUntilNone(kPatience), 0);
  EXPECT_EQ(stalled.Finish().error_code(), grpc::StatusCode::CANCELLED);
  // Executed, and never sent whole.
  EXPECT_EQ(server_.observer.AwaitCodes(2), (std::vector<StatusCode>(2, StatusCode::kOk)));
  EXPECT_EQ(server_.observer.AwaitSent(1).size(), 1u);
}

TEST_F(StallRpcTest, BreaksAStreamOffWhoseAnswersAreNotRead) {
  RawCall stalled(server_, "/inference.GRPCInferenceService/ModelStreamInfer");
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(stalled.Write(request_.SerializeAsString()));
  EXPECT_EQ(server_.observer.AwaitFinished(2).size(), 2u);
  EXPECT_TRUE(Infer(server_, GoodRequest(kForwardFp16, {4})).status.ok());
  EXPECT_TRUE(server_.AwaitIdle());
  EXPECT_EQ(stalled.Finish().error_code(), grpc::StatusCode::CANCELLED);
}

// The time that an answer may take begins when it is there. More than the limit has passed once
// another caller is given up that came later.
TEST_F(StallRpcTest, WaitsForAnExecutorAsLongAsItTakes) {
  HoldingExecutor executor;
  TestServer server(&executor, Impatient());
  BackgroundInfer executing(server, GoodRequest(kForwardFp16, {4}));
  ASSERT_TRUE(executor.AwaitHeld());
  RawCall stalled(server, kInferMethod, {{"swiglu-request-bytes", "1000"}});
  EXPECT_EQ(stalled.Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  executor.Release();
  EXPECT_TRUE(executing.Wait().status.ok()) << executing.Wait().status.error_message();
}

TEST(PatientStallTest, LeavesCallersAloneThatHaveTime) {
  HoldingExecutor executor;
  executor.Release();
  TestServer server(&executor);
  RawCall call(server, kInferMethod, {{"swiglu-request-bytes", "1000"}});
  ASSERT_TRUE(
      Eventually([&] { return server.admission.used_bytes(MemoryKind::kReceive) == 1'000; }));
  server.rpc->Broadcast(ServerEvent::kTick);
  EXPECT_EQ(server.admission.used_bytes(MemoryKind::kReceive), 1'000);
  EXPECT_TRUE(call.Write(GoodRequest(kForwardFp16, {4}).SerializeAsString()));
  EXPECT_TRUE(call.Finish().ok());
}

}  // namespace
}  // namespace swiglu::server
