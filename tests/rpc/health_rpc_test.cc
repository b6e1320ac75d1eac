// SPDX-License-Identifier: Apache-2.0
//
// grpc.health.v1 over a real connection: what Check answers in each state of the server, and that
// Watch tells of every change and ends with the server.
#include <memory>
#include <string>

#include "gtest/gtest.h"
#include "tests/rpc/calls.h"

namespace swiglu::server {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

constexpr char kInferenceService[] = "inference.GRPCInferenceService";
constexpr char kWatchMethod[] = "/grpc.health.v1.Health/Watch";

HealthCheckRequest RequestFor(const std::string& service) {
  HealthCheckRequest request;
  request.set_service(service);
  return request;
}

// A Watch, read message by message.
class Watch {
 public:
  Watch(TestServer& server, const std::string& service)
      : reader_(server.health_stub->Watch(&context_, RequestFor(service))) {}

  // The next state; UNKNOWN when there is none.
  HealthCheckResponse::ServingStatus Next() {
    HealthCheckResponse response;
    EXPECT_TRUE(reader_->Read(&response));
    return response.status();
  }
  void Cancel() { context_.TryCancel(); }
  // How it ended; there must be no further state.
  grpc::Status Finish() {
    HealthCheckResponse response;
    EXPECT_FALSE(reader_->Read(&response)) << response.ShortDebugString();
    return reader_->Finish();
  }

 private:
  PatientContext context_;
  std::unique_ptr<grpc::ClientReader<HealthCheckResponse>> reader_;
};

class HealthRpcTest : public testing::Test {
 protected:
  HealthRpcTest() { executor_.Release(); }

  HealthCheckResponse::ServingStatus Check(const std::string& service) {
    PatientContext context;
    HealthCheckResponse response;
    const grpc::Status status =
        server_.health_stub->Check(&context, RequestFor(service), &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.status();
  }

  HoldingExecutor executor_;
  TestServer server_{&executor_};
};

TEST_F(HealthRpcTest, ServesAllThreeServices) {
  EXPECT_EQ(Check(""), HealthCheckResponse::SERVING);
  EXPECT_EQ(Check(kInferenceService), HealthCheckResponse::SERVING);
  EXPECT_EQ(Check("liveness"), HealthCheckResponse::SERVING);
}

TEST_F(HealthRpcTest, IsAliveThoughNotServing) {
  server_.health.StopServing();
  EXPECT_EQ(Check(""), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Check(kInferenceService), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Check("liveness"), HealthCheckResponse::SERVING);
}

TEST_F(HealthRpcTest, AnswersWhileItDrains) {
  server_.StartDrain();
  EXPECT_EQ(Check(""), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Check("liveness"), HealthCheckResponse::SERVING);
}

TEST_F(HealthRpcTest, AFailedDeviceFailsAllServices) {
  executor_.Fail();
  EXPECT_EQ(Check(""), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Check(kInferenceService), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Check("liveness"), HealthCheckResponse::NOT_SERVING);
}

TEST_F(HealthRpcTest, RefusesToCheckAnUnknownService) {
  for (const std::string service : {"nope", "Liveness", "inference"}) {
    PatientContext context;
    HealthCheckResponse response;
    EXPECT_CALL_STATUS(server_.health_stub->Check(&context, RequestFor(service), &response),
                       grpc::StatusCode::NOT_FOUND,
                       "unknown service '" + service +
                           "': the server's health is known as '', inference.GRPCInferenceService "
                           "and liveness");
  }
}

TEST_F(HealthRpcTest, WatchTellsTheStateAndItsChange) {
  Watch all(server_, "");
  Watch service(server_, kInferenceService);
  EXPECT_EQ(all.Next(), HealthCheckResponse::SERVING);
  EXPECT_EQ(service.Next(), HealthCheckResponse::SERVING);
  server_.health.StopServing();
  server_.rpc->Broadcast(ServerEvent::kHealthChanged);
  EXPECT_EQ(all.Next(), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(service.Next(), HealthCheckResponse::NOT_SERVING);
}

TEST_F(HealthRpcTest, WatchSaysNothingTwice) {
  Watch ready(server_, "");
  EXPECT_EQ(ready.Next(), HealthCheckResponse::SERVING);
  server_.rpc->Broadcast(ServerEvent::kHealthChanged);
  server_.rpc->Broadcast(ServerEvent::kHealthChanged);
  server_.StartDrain();
  EXPECT_EQ(ready.Next(), HealthCheckResponse::NOT_SERVING);
  EXPECT_CALL_STATUS(ready.Finish(), grpc::StatusCode::UNAVAILABLE, "server is draining");
}

TEST_F(HealthRpcTest, WatchOfLivenessChangesOnlyWithTheDevice) {
  Watch live(server_, "liveness");
  EXPECT_EQ(live.Next(), HealthCheckResponse::SERVING);
  server_.health.StopServing();
  server_.rpc->Broadcast(ServerEvent::kHealthChanged);
  executor_.Fail();
  server_.rpc->Broadcast(ServerEvent::kHealthChanged);
  EXPECT_EQ(live.Next(), HealthCheckResponse::NOT_SERVING);
}

TEST_F(HealthRpcTest, WatchOfAnUnknownServiceSaysSoAndStaysOpen) {
  Watch unknown(server_, "nope");
  EXPECT_EQ(unknown.Next(), HealthCheckResponse::SERVICE_UNKNOWN);
  server_.health.StopServing();
  server_.rpc->Broadcast(ServerEvent::kHealthChanged);
  server_.rpc->Broadcast(ServerEvent::kDraining);
  // Open until then, without another word.
  EXPECT_CALL_STATUS(unknown.Finish(), grpc::StatusCode::UNAVAILABLE, "server is draining");
}

TEST_F(HealthRpcTest, WatchThatBeginsWhileNotServingSaysThat) {
  executor_.Fail();
  for (const std::string service : {"", kInferenceService, "liveness"}) {
    Watch watch(server_, service);
    EXPECT_EQ(watch.Next(), HealthCheckResponse::NOT_SERVING);
    watch.Cancel();
    EXPECT_EQ(watch.Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
}

TEST_F(HealthRpcTest, WatchThatNeverNamesAServiceEndsWhenDraining) {
  RawCall silent(server_, kWatchMethod);
  // A later call on the connection is served, so the server knows of the silent one.
  EXPECT_EQ(Check(""), HealthCheckResponse::SERVING);
  server_.StartDrain();
  EXPECT_CALL_STATUS(silent.Finish(), grpc::StatusCode::UNAVAILABLE, "server is draining");
}

TEST_F(HealthRpcTest, WatchRefusesWhatIsNoRequest) {
  const google::protobuf::LogSilencer silencer;
  RawCall malformed(server_, kWatchMethod);
  EXPECT_TRUE(malformed.Write("\x0a"));
  EXPECT_CALL_STATUS(malformed.Finish(), grpc::StatusCode::INVALID_ARGUMENT,
                     "malformed HealthCheckRequest: in its 1 bytes");
  RawCall empty(server_, kWatchMethod);
  EXPECT_TRUE(empty.WritesDone());
  EXPECT_CALL_STATUS(
      empty.Finish(), grpc::StatusCode::INVALID_ARGUMENT,
      "malformed HealthCheckRequest: no whole message came, or its flag byte is neither 0 nor 1");
}

}  // namespace
}  // namespace swiglu::server
