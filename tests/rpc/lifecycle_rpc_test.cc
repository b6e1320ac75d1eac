// SPDX-License-Identifier: Apache-2.0
//
// How calls and the server end, over a real connection: deadlines, callers that go away at each
// step of their call, draining and shutdown; and that what waits together is executed together.
#include <algorithm>
#include <atomic>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/rpc/calls.h"

namespace swiglu::server {
namespace {

using absl::StatusCode;
using inference::ModelInferRequest;

class LifecycleRpcTest : public HoldingServerTest {
 protected:
  LifecycleRpcTest() : HoldingServerTest(1, OneIoThread()) {}

  static ModelInferRequest WithTimeout(ModelInferRequest request, int64_t timeout_us) {
    (*request.mutable_parameters())["timeout"].set_int64_param(timeout_us);
    return request;
  }
  static TestServerOptions OneIoThread() {
    TestServerOptions options;
    options.io_threads = 1;
    return options;
  }
  bool AwaitQueued(int64_t count) {
    return Eventually([this, count] { return server_.admission.queued_requests() == count; });
  }

  const ModelInferRequest request_ = GoodRequest(kForwardFp16, {4});
};

// --- Deadlines

// The caller's deadline holds although the `timeout` parameter is as long as can be.
TEST_F(LifecycleRpcTest, DropsARequestWhoseDeadlinePassesInTheQueue) {
  BackgroundInfer executing(server_, request_);
  ASSERT_TRUE(executor_.AwaitHeld());
  const absl::Duration patience = absl::Milliseconds(300);
  BackgroundInfer late(server_, WithTimeout(request_, std::numeric_limits<int64_t>::max()),
                       patience);
  EXPECT_EQ(late.Wait().status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  // The caller's clock is there first, by as long as its call was under way: if that was long, it
  // counts as one that cancelled.
  EXPECT_THAT(
      server_.observer.AwaitCodes(1),
      testing::ElementsAre(testing::AnyOf(StatusCode::kDeadlineExceeded, StatusCode::kCancelled)));
  EXPECT_TRUE(AwaitQueued(0));
  executor_.Complete();
  EXPECT_TRUE(executing.Wait().status.ok());
  EXPECT_EQ(executor_.batch_sizes(), std::vector<size_t>{1});
}

TEST_F(LifecycleRpcTest, TheTimeoutParameterShortensTheDeadline) {
  BackgroundInfer executing(server_, request_);
  ASSERT_TRUE(executor_.AwaitHeld());
  BackgroundInfer late(server_, WithTimeout(request_, 1));
  // While the other is still executing.
  EXPECT_CALL_STATUS(late.Wait().status, grpc::StatusCode::DEADLINE_EXCEEDED,
                     "deadline passed before execution");
  executor_.Complete();
  EXPECT_TRUE(executing.Wait().status.ok());
  EXPECT_EQ(server_.observer.AwaitRejected(1), std::vector<Rejection>{Rejection::kDeadline});
  EXPECT_EQ(executor_.batch_sizes(), std::vector<size_t>{1});
}

TEST_F(LifecycleRpcTest, TheLongestTimeoutIsNoTimeout) {
  executor_.Release();
  EXPECT_TRUE(
      Infer(server_, WithTimeout(request_, std::numeric_limits<int64_t>::max())).status.ok());
  // Without a deadline of the call's own, too.
  grpc::ClientContext context;
  inference::ModelInferResponse response;
  const grpc::Status status = server_.stub->ModelInfer(
      &context, WithTimeout(request_, std::numeric_limits<int64_t>::max()), &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
}

// --- Callers that go away

TEST_F(LifecycleRpcTest, CountsACallerThatGoesBeforeItsMessage) {
  {
    RawCall call(server_, kInferMethod);
    call.Cancel();
    EXPECT_EQ(call.Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  const std::vector<RequestRecord> records = server_.observer.AwaitFinished(1);
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].status.code(), StatusCode::kCancelled);
  EXPECT_EQ(records[0].model, nullptr);
  EXPECT_EQ(records[0].bytes_in, 0);
  EXPECT_EQ(server_.observer.AwaitRejected(1), std::vector<Rejection>{Rejection::kCancelled});
  EXPECT_TRUE(executor_.batch_sizes().empty());
}

TEST_F(LifecycleRpcTest, DropsACancelledRequestBeforeExecution) {
  BackgroundInfer executing(server_, request_);
  ASSERT_TRUE(executor_.AwaitHeld());
  BackgroundInfer cancelled(server_, request_);
  ASSERT_TRUE(AwaitQueued(1));
  cancelled.Cancel();
  EXPECT_EQ(cancelled.Wait().status.error_code(), grpc::StatusCode::CANCELLED);
  AwaitAllHeard(server_);
  executor_.Complete();
  EXPECT_TRUE(executing.Wait().status.ok());

  std::vector<StatusCode> codes = server_.observer.AwaitCodes(2);
  std::sort(codes.begin(), codes.end());
  EXPECT_EQ(codes, (std::vector<StatusCode>{StatusCode::kOk, StatusCode::kCancelled}));
  EXPECT_EQ(server_.observer.AwaitRejected(1), std::vector<Rejection>{Rejection::kCancelled});
  EXPECT_EQ(executor_.batch_sizes(), std::vector<size_t>{1});
}

TEST_F(LifecycleRpcTest, FreesARequestThatIsCancelledDuringExecution) {
  BackgroundInfer cancelled(server_, request_);
  ASSERT_TRUE(executor_.AwaitHeld());
  cancelled.Cancel();
  EXPECT_EQ(cancelled.Wait().status.error_code(), grpc::StatusCode::CANCELLED);
  AwaitAllHeard(server_);
  executor_.Complete();
  EXPECT_EQ(server_.observer.AwaitCodes(1), std::vector<StatusCode>{StatusCode::kCancelled});
  EXPECT_EQ(server_.observer.AwaitRejected(1), std::vector<Rejection>{Rejection::kCancelled});
  EXPECT_TRUE(server_.observer.AwaitSent(0).empty());
}

TEST_F(LifecycleRpcTest, FreesAnAnswerThatACancelledCallerNeverRead) {
  executor_.Release();
  RawCall call(server_, kInferMethod);
  // More than a connection takes unread.
  ASSERT_TRUE(call.Write(GoodRequest(kForwardFp16, {8'000'000}).SerializeAsString()));
  server_.observer.AwaitFinished(1);
  EXPECT_GT(server_.admission.used_bytes(MemoryKind::kResponse), 0);
  call.Cancel();
  EXPECT_EQ(call.Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(server_.AwaitIdle());
}

// Callers that go away at any moment: each request that the server saw is finished once, and every
// call that was not cancelled is answered.
TEST_F(LifecycleRpcTest, OutlivesCallersThatGoAtAnyMoment) {
  executor_.Release();
  constexpr int kThreads = 4;
  constexpr int kCalls = 250;
  std::atomic<int> num_wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, t, &num_wrong] {
      std::mt19937 random(t);
      const std::string bytes = GoodRequest(kForwardFp16, {1 + t * 1000}).SerializeAsString();
      for (int i = 0; i < kCalls; ++i) {
        RawCall call(server_, kInferMethod);
        const unsigned last_step = random() % 4;
        if (last_step >= 1) call.Write(bytes);
        if (last_step >= 2) call.WritesDone();
        if (last_step < 3) call.Cancel();
        const grpc::StatusCode code = call.Finish().error_code();
        const bool may_be_late = last_step < 3 && code == grpc::StatusCode::CANCELLED;
        num_wrong += code != grpc::StatusCode::OK && !may_be_late;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_wrong, 0);
  AwaitAllHeard(server_);
  EXPECT_TRUE(server_.AwaitIdle());
  EXPECT_LE(server_.observer.num_finished(), static_cast<size_t>(kThreads * kCalls));
}

// --- Batches

TEST_F(LifecycleRpcTest, RunsTogetherWhatWaitsForTheSameModel) {
  BackgroundInfer executing(server_, request_);
  ASSERT_TRUE(executor_.AwaitHeld());
  BackgroundInfer vector(server_, GoodRequest(kForwardFp16, {7}));
  BackgroundInfer matrix(server_, GoodRequest(kForwardFp16, {3, 5}));
  BackgroundInfer scalar(server_, GoodRequest(kForwardFp16, {}));
  ASSERT_TRUE(AwaitQueued(3));
  BackgroundInfer other_dtype(server_, GoodRequest(kForwardFp32, {4}));
  ASSERT_TRUE(AwaitQueued(4));
  BackgroundInfer other_op(server_, GoodRequest(kBackwardBf16, {4}));
  ASSERT_TRUE(AwaitQueued(5));
  executor_.Release();

  EXPECT_TRUE(executing.Wait().status.ok());
  ASSERT_TRUE(vector.Wait().status.ok());
  EXPECT_EQ(vector.Wait().response.raw_output_contents(0).size(), 14u);
  ASSERT_TRUE(matrix.Wait().status.ok());
  EXPECT_EQ(matrix.Wait().response.raw_output_contents(0).size(), 30u);
  ASSERT_TRUE(scalar.Wait().status.ok());
  EXPECT_EQ(scalar.Wait().response.raw_output_contents(0).size(), 2u);
  EXPECT_TRUE(other_dtype.Wait().status.ok());
  EXPECT_TRUE(other_op.Wait().status.ok());
  EXPECT_EQ(executor_.batch_sizes(), (std::vector<size_t>{1, 3, 1, 1}));
  EXPECT_EQ(server_.observer.AwaitFinished(6).size(), 6u);
}

// --- Draining and shutdown

TEST_F(LifecycleRpcTest, DrainsByFinishingWhatItAcceptedAndRefusingTheRest) {
  BackgroundInfer executing(server_, request_);
  ASSERT_TRUE(executor_.AwaitHeld());
  BackgroundInfer queued(server_, request_);
  ASSERT_TRUE(AwaitQueued(1));
  server_.StartDrain();
  const auto refused = Infer(server_, request_);
  EXPECT_CALL_STATUS(refused.status, grpc::StatusCode::UNAVAILABLE, "server is draining");
  EXPECT_EQ(refused.trailers.count("grpc-retry-pushback-ms"), 1u);
  EXPECT_EQ(server_.observer.num_retries_advised(), 1);
  EXPECT_EQ(server_.observer.AwaitRejected(1), std::vector<Rejection>{Rejection::kDraining});
  EXPECT_EQ(server_.active().WaitUntilNone(absl::ZeroDuration()), 2);

  executor_.Release();
  EXPECT_TRUE(executing.Wait().status.ok());
  EXPECT_TRUE(queued.Wait().status.ok());
  EXPECT_EQ(server_.active().WaitUntilNone(kPatience), 0);
  EXPECT_EQ(server_.observer.AwaitFinished(3).size(), 3u);
}

TEST_F(LifecycleRpcTest, DrainsACallWhoseMessageIsMissing) {
  RawCall infer(server_, kInferMethod);
  server_.StartDrain();
  EXPECT_CALL_STATUS(infer.Finish(), grpc::StatusCode::UNAVAILABLE, "server is draining");
  EXPECT_EQ(server_.observer.AwaitCodes(1), std::vector<StatusCode>{StatusCode::kUnavailable});
  EXPECT_EQ(server_.observer.AwaitRejected(1), std::vector<Rejection>{Rejection::kDraining});
}

// Whoever asks after the server's health in the very moment is told the truth.
TEST_F(LifecycleRpcTest, AnswersAControlCallThatBeganBeforeTheDrain) {
  RawCall control(server_, "/inference.GRPCInferenceService/ServerReady");
  AwaitAllHeard(server_);
  server_.StartDrain();
  // With one I/O thread, this answer comes after the drain was heard.
  EXPECT_CALL_STATUS(Infer(server_, request_).status, grpc::StatusCode::UNAVAILABLE,
                     "server is draining");
  EXPECT_TRUE(control.Write(""));
  std::string answer = "none";
  EXPECT_TRUE(control.Read(&answer));
  EXPECT_EQ(answer, "");  // not ready
  EXPECT_TRUE(control.Finish().ok());
}

// A message that crosses its refusal is not executed, and the call is counted once.
TEST_F(LifecycleRpcTest, EndsACallOnceWhenItsMessageMeetsTheDrain) {
  executor_.Release();
  constexpr int kRounds = 300;
  const std::string bytes = request_.SerializeAsString();
  int num_served = 0;
  for (int round = 0; round < kRounds; ++round) {
    RawCall call(server_, kInferMethod);
    std::thread drainer([this] { server_.rpc->Broadcast(ServerEvent::kDraining); });
    call.Write(bytes);
    drainer.join();
    const grpc::Status status = call.Finish();
    num_served += status.ok();
    if (!status.ok()) {
      EXPECT_CALL_STATUS(status, grpc::StatusCode::UNAVAILABLE, "server is draining");
    }
  }
  const std::vector<StatusCode> codes = server_.observer.AwaitCodes(kRounds);
  EXPECT_EQ(codes.size(), static_cast<size_t>(kRounds));
  EXPECT_EQ(std::count(codes.begin(), codes.end(), StatusCode::kOk), num_served);
  server_.StartDrain();
}

TEST(ShutdownTest, WaitsForWhatTheExecutorHolds) {
  HoldingExecutor executor;
  TestServer server(&executor);
  BackgroundInfer executing(server, GoodRequest(kForwardFp16, {4}));
  ASSERT_TRUE(executor.AwaitHeld());
  BackgroundInfer queued(server, GoodRequest(kForwardFp16, {4}));
  ASSERT_TRUE(Eventually([&server] { return server.admission.queued_requests() == 1; }));
  std::atomic<bool> released{false};
  std::thread device([&] {
    // Cut off first, and done only then.
    EXPECT_FALSE(executing.Wait().status.ok());
    EXPECT_FALSE(queued.Wait().status.ok());
    released = true;
    executor.Release();
  });
  server.rpc->Shutdown(absl::ZeroDuration());
  EXPECT_TRUE(released);
  device.join();
  EXPECT_EQ(server.observer.AwaitFinished(2).size(), 2u);
  EXPECT_TRUE(server.AwaitIdle());
}

TEST(ShutdownTest, EndsCallsOfEveryKindAtAnyStep) {
  for (int round = 0; round < 20; ++round) {
    HoldingExecutor executor;
    executor.Release();
    TestServer server(&executor);
    RawCall infer(server, kInferMethod);
    RawCall stream(server, "/inference.GRPCInferenceService/ModelStreamInfer");
    RawCall watch(server, "/grpc.health.v1.Health/Watch");
    RawCall control(server, "/inference.GRPCInferenceService/ServerLive");
    InferStream answered(server);
    answered.Send(GoodRequest(kForwardFp16, {4}));
    answered.Receive();
    server.rpc->Shutdown(absl::ZeroDuration());
    EXPECT_FALSE(infer.Finish().ok());
    EXPECT_FALSE(stream.Finish().ok());
    EXPECT_FALSE(watch.Finish().ok());
    EXPECT_FALSE(control.Finish().ok());
    EXPECT_FALSE(answered.Finish().ok());
  }
}

TEST(ShutdownTest, CallsThatBeginInADrainEnd) {
  HoldingExecutor executor;
  TestServer server(&executor);
  server.StartDrain();
  for (const char* method :
       {"/inference.GRPCInferenceService/ModelStreamInfer", "/grpc.health.v1.Health/Watch"}) {
    RawCall silent(server, method);
    EXPECT_CALL_STATUS(silent.Finish(), grpc::StatusCode::UNAVAILABLE, "server is draining");
  }
}

// Makes a call, and returns its status. If the connection has broken, waits until the channel is no
// longer ready. Otherwise new calls might go on beginning on the broken connection, and gRPC's
// client does not close it before they stop. It ends each of them, and each takes longer than the
// one before. This keeps a thread of gRPC busy on which the server in this process depends, too.
grpc::Status CallAgain(TestServer& server) {
  const grpc::Status status = Infer(server, GoodRequest(kForwardFp16, {4})).status;
  if (!status.ok() && status.error_message() != "server is draining") {
    EXPECT_TRUE(server.channel->WaitForStateChange(GRPC_CHANNEL_READY,
                                                   absl::ToChronoTime(absl::Now() + kPatience)));
  }
  return status;
}

// The end of a drain as the program makes it, under callers who never stop.
void DrainUnderLoad(const std::string& address) {
  HoldingExecutor executor;
  executor.Release();
  TestServerOptions options;
  options.address = address;
  TestServer server(&executor, options);
  std::atomic<bool> stop{false};
  std::vector<std::thread> callers;
  for (int t = 0; t < 8; ++t) {
    callers.emplace_back([&] {
      while (!stop) {
        const grpc::Status status = CallAgain(server);
        if (!status.ok()) {
          EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
        }
      }
    });
  }
  server.observer.AwaitFinished(10);
  server.StartDrain();
  EXPECT_EQ(server.active().WaitUntilNone(kPatience), 0);
  const absl::Time deadline = absl::Now() + kPatience;
  server.rpc->CloseConnections(kPatience);
  EXPECT_LT(absl::Now(), deadline);  // nobody is waited for who only sends more
  server.rpc->Shutdown(absl::ZeroDuration());
  stop = true;
  for (std::thread& caller : callers) caller.join();
}

TEST(ShutdownTest, AfterADrainCallsAreUnavailableAndNotCancelled) {
  for (int round = 0; round < 5; ++round) {
    DrainUnderLoad("127.0.0.1:0");
    DrainUnderLoad(absl::StrCat("unix:", testing::TempDir(), "drain_under_load"));
  }
}

// Calls that arrive while the server goes away.
TEST(ShutdownTest, MeetsNewCalls) {
  for (int round = 0; round < 20; ++round) {
    HoldingExecutor executor;
    executor.Release();
    TestServer server(&executor);
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&] {
        while (!stop) CallAgain(server);
      });
    }
    server.observer.AwaitFinished(10);
    server.rpc->Shutdown(absl::ZeroDuration());
    stop = true;
    for (std::thread& thread : threads) thread.join();
  }
}

}  // namespace
}  // namespace swiglu::server
