// SPDX-License-Identifier: Apache-2.0
//
// Models with weights, through a real server: before the weights are there, and when they change.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/core/weights.h"
#include "tests/rpc/server_fixture.h"

namespace swiglu::server {
namespace {

class NamedWeights final : public Weights {
 public:
  explicit NamedWeights(std::string sha256) : Weights(std::move(sha256)) {}
};

class MlpRpcTest : public testing::Test {
 protected:
  MlpRpcTest() {
    TestServerOptions options;
    options.loads_weights = true;
    options.stopping = [this] { ++num_stops_; };
    for (const Op op : {Op::kMlpForward, Op::kMlpBackward}) {
      options.other_models.push_back(
          MakeMlpModel({.op = op, .mlp = "m", .hidden = 16, .intermediate = 8, .weights = &slot_}));
    }
    server_ = std::make_unique<TestServer>(&executor_, options);
  }

  void SetWeights(const std::string& sha256) {
    slot_.Set(std::make_shared<const NamedWeights>(sha256));
  }
  inference::ModelInferRequest Request(const std::string& model) {
    return GoodRequest(*server_->models.Find(model), {2, 16});
  }
  std::string SentProperty() {
    PatientContext context;
    inference::ModelMetadataRequest request;
    request.set_name("mlp_m_0_forward");
    inference::ModelMetadataResponse response;
    EXPECT_TRUE(server_->stub->ModelMetadata(&context, request, &response).ok());
    const auto found = response.properties().find("weights_sha256");
    return found == response.properties().end() ? "none" : found->second;
  }
  bool IsReady() {
    PatientContext context;
    inference::ServerReadyResponse response;
    EXPECT_TRUE(server_->stub->ServerReady(&context, {}, &response).ok());
    return response.ready();
  }

  int num_stops_ = 0;
  WeightsSlot slot_;
  HoldingExecutor executor_;
  std::unique_ptr<TestServer> server_;
};

std::string SentParameter(const inference::ModelInferResponse& response) {
  const auto found = response.parameters().find("weights_sha256");
  return found == response.parameters().end() ? "none" : found->second.string_param();
}

TEST_F(MlpRpcTest, IsNotReadyBeforeTheWeightsAreThere) {
  executor_.Release();
  EXPECT_FALSE(IsReady());
  PatientContext context;
  inference::RepositoryIndexResponse index;
  EXPECT_TRUE(server_->stub->RepositoryIndex(&context, {}, &index).ok());
  EXPECT_EQ(index.models(7).name(), "mlp_m_0_backward");
  EXPECT_EQ(index.models(7).state(), "UNAVAILABLE");
  EXPECT_EQ(index.models(7).reason(), "weights are being loaded");
  EXPECT_CALL_STATUS(Infer(*server_, Request("mlp_m_0_forward")).status,
                     grpc::StatusCode::UNAVAILABLE,
                     "the weights of 'mlp_m_0_forward' are still being loaded");
  // The other models need none.
  EXPECT_TRUE(Infer(*server_, GoodRequest(kForwardFp16, {4})).status.ok());
  SetWeights("a");
  server_->SetLoaded();
  EXPECT_TRUE(IsReady());
  EXPECT_TRUE(Infer(*server_, Request("mlp_m_0_forward")).status.ok());
}

TEST_F(MlpRpcTest, TellsAWatcherThatTheWeightsAreThere) {
  PatientContext context;
  const auto watch = server_->health_stub->Watch(&context, {});
  grpc::health::v1::HealthCheckResponse state;
  ASSERT_TRUE(watch->Read(&state));
  EXPECT_EQ(state.status(), grpc::health::v1::HealthCheckResponse::NOT_SERVING);
  server_->SetLoaded();
  ASSERT_TRUE(watch->Read(&state));
  EXPECT_EQ(state.status(), grpc::health::v1::HealthCheckResponse::SERVING);
  context.TryCancel();
}

// So that whoever loads weights ends that.
TEST_F(MlpRpcTest, SaysThatItStops) {
  EXPECT_EQ(num_stops_, 0);
  server_->StartDrain();
  EXPECT_EQ(num_stops_, 1);
}

TEST_F(MlpRpcTest, SaysWhichWeightsHaveComputed) {
  executor_.Release();
  EXPECT_EQ(SentProperty(), "none");
  SetWeights("a");
  EXPECT_EQ(SentProperty(), "a");
  for (const char* model : {"mlp_m_0_forward", "mlp_m_0_backward"}) {
    const auto result = Infer(*server_, Request(model));
    ASSERT_TRUE(result.status.ok()) << result.status.error_message();
    EXPECT_EQ(SentParameter(result.response), "a");
  }
  const auto elementwise = Infer(*server_, GoodRequest(kForwardFp16, {4}));
  EXPECT_EQ(elementwise.response.parameters_size(), 0);
}

// The one lane is busy with the old weights. Of the two that wait, one came before the change.
TEST_F(MlpRpcTest, ComputesARequestWithTheWeightsOfItsAdmission) {
  SetWeights("old");
  BackgroundInfer running(*server_, Request("mlp_m_0_forward"));
  ASSERT_TRUE(executor_.AwaitHeld());
  BackgroundInfer before(*server_, Request("mlp_m_0_forward"));
  ASSERT_TRUE(Eventually([&] { return server_->batcher().outstanding_requests() == 2; }));
  SetWeights("new");
  BackgroundInfer after(*server_, Request("mlp_m_0_forward"));
  ASSERT_TRUE(Eventually([&] { return server_->batcher().outstanding_requests() == 3; }));
  executor_.Release();
  EXPECT_EQ(SentParameter(running.Wait().response), "old");
  EXPECT_EQ(SentParameter(before.Wait().response), "old");
  EXPECT_EQ(SentParameter(after.Wait().response), "new");
  EXPECT_EQ(executor_.batch_sizes(), (std::vector<size_t>{1, 1, 1}));
}

}  // namespace
}  // namespace swiglu::server
