// SPDX-License-Identifier: Apache-2.0
//
// Models with weights, through a real server: before the weights are there, and when they change;
// and requests for gradients of the weights.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
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
  EXPECT_EQ(server_->observer.AwaitRejected(1), std::vector<Rejection>{Rejection::kLoading});
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

// --- Gradients of the weights. H = 16 and I = 8: 512 bytes each.

constexpr int64_t kGradientBytes = 16 * 8 * 4;

class MlpGradientsRpcTest : public testing::TestWithParam<InputForm> {
 protected:
  MlpGradientsRpcTest() : model_(Backward()) { Start({}); }
  ~MlpGradientsRpcTest() override {
    executor_->Release();
    EXPECT_TRUE(server_->AwaitIdle());
    EXPECT_TRUE(Eventually([this] { return executor_->counting_pool().num_live() == 0; }));
  }

  static Model Backward() {
    return MakeMlpModel({.op = Op::kMlpBackward,
                         .mlp = "m",
                         .hidden = 16,
                         .intermediate = 8,
                         .max_batch_rows = 32});
  }
  void Start(TestServerOptions options) {
    options.other_models = {model_};
    server_.reset();
    executor_ = std::make_unique<HoldingExecutor>(1, int64_t{1} << 20, GetParam());
    server_ = std::make_unique<TestServer>(executor_.get(), std::move(options));
  }
  inference::ModelInferRequest Request(int64_t num_tokens,
                                       const std::vector<std::string>& outputs) {
    inference::ModelInferRequest request = GoodRequest(model_, {num_tokens, 16});
    for (const std::string& output : outputs) request.add_outputs()->set_name(output);
    return request;
  }
  // Every element of gradient `g`, as the executor writes them.
  static std::string Gradient(int g) {
    const std::vector<float> values(16 * 8, static_cast<float>(g + 1));
    return {reinterpret_cast<const char*>(values.data()), kGradientBytes};
  }

  const Model model_;
  std::unique_ptr<HoldingExecutor> executor_;
  std::unique_ptr<TestServer> server_;
};

INSTANTIATE_TEST_SUITE_P(, MlpGradientsRpcTest,
                         testing::Values(InputForm::kWhole, InputForm::kInPieces),
                         [](const auto& param_info) {
                           return param_info.param == InputForm::kWhole ? "Whole" : "InPieces";
                         });

TEST_P(MlpGradientsRpcTest, GivesThoseThatAreNamed) {
  executor_->Release();
  const inference::ModelInferRequest request = Request(3, {"d_down_proj", "dx", "d_gate_proj"});
  const auto result = Infer(*server_, request);
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  ASSERT_EQ(result.response.outputs_size(), 3);
  EXPECT_EQ(result.response.outputs(0).ShortDebugString(),
            "name: \"d_down_proj\" datatype: \"FP32\" shape: 16 shape: 8");
  EXPECT_EQ(result.response.outputs(1).name(), "dx");
  EXPECT_EQ(result.response.outputs(2).name(), "d_gate_proj");
  EXPECT_EQ(result.response.raw_output_contents(0), Gradient(2));
  EXPECT_EQ(result.response.raw_output_contents(1), request.raw_input_contents(0));
  EXPECT_EQ(result.response.raw_output_contents(2), Gradient(0));
  const auto records = server_->observer.AwaitFinished(1);
  EXPECT_EQ(records[0].bytes_out, static_cast<int64_t>(result.response.ByteSizeLong()));
}

TEST_P(MlpGradientsRpcTest, GivesDxAloneIfNoneIsNamed) {
  executor_->Release();
  const auto result = Infer(*server_, Request(3, {}));
  ASSERT_EQ(result.response.outputs_size(), 1);
  EXPECT_EQ(result.response.outputs(0).name(), "dx");
}

TEST_P(MlpGradientsRpcTest, LeavesOutDxIfItIsNotNamed) {
  executor_->Release();
  const auto result = Infer(*server_, Request(3, {"d_up_proj"}));
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  ASSERT_EQ(result.response.outputs_size(), 1);
  ASSERT_EQ(result.response.raw_output_contents_size(), 1);
  EXPECT_EQ(result.response.raw_output_contents(0), Gradient(1));
}

TEST_P(MlpGradientsRpcTest, GivesThemWithoutTokens) {
  executor_->Release();
  const auto result = Infer(*server_, Request(0, {"dx", "d_up_proj"}));
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  EXPECT_EQ(result.response.raw_output_contents(0), "");
  EXPECT_EQ(result.response.raw_output_contents(1), Gradient(1));
}

// 100 tokens without gradients would be four chunks of 32 tokens at most.
TEST_P(MlpGradientsRpcTest, AreComputedFromAllTokensAtOnce) {
  executor_->Release();
  const inference::ModelInferRequest request = Request(100, {"dx", "d_up_proj"});
  const auto result = Infer(*server_, request);
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  EXPECT_EQ(executor_->batch_sizes(), std::vector<size_t>{1});
  EXPECT_TRUE(result.response.raw_output_contents(0) == request.raw_input_contents(0));
}

// The one lane is busy while the others come.
TEST_P(MlpGradientsRpcTest, ShareNoBatch) {
  BackgroundInfer running(*server_, Request(1, {}));
  ASSERT_TRUE(executor_->AwaitHeld());
  BackgroundInfer gradients(*server_, Request(1, {"d_up_proj"}));
  ASSERT_TRUE(Eventually([&] { return server_->batcher().outstanding_requests() == 2; }));
  BackgroundInfer one(*server_, Request(1, {}));
  ASSERT_TRUE(Eventually([&] { return server_->batcher().outstanding_requests() == 3; }));
  BackgroundInfer another(*server_, Request(1, {}));
  ASSERT_TRUE(Eventually([&] { return server_->batcher().outstanding_requests() == 4; }));
  executor_->Release();
  EXPECT_EQ(gradients.Wait().response.raw_output_contents(0), Gradient(1));
  EXPECT_TRUE(one.Wait().status.ok());
  EXPECT_TRUE(another.Wait().status.ok());
  EXPECT_TRUE(running.Wait().status.ok());
  EXPECT_EQ(executor_->batch_sizes(), (std::vector<size_t>{1, 1, 2}));
}

TEST_P(MlpGradientsRpcTest, AreChargedToTheBudget) {
  const auto held_bytes = [this] { return server_->admission.used_bytes(MemoryKind::kStaging); };
  BackgroundInfer running(*server_, Request(1, {"dx", "d_up_proj", "d_gate_proj"}));
  ASSERT_TRUE(executor_->AwaitHeld());
  EXPECT_GE(held_bytes(), 2 * kGradientBytes + 256);
  EXPECT_LT(held_bytes(), 3 * kGradientBytes + 1024);
  executor_->Release();
  EXPECT_TRUE(running.Wait().status.ok());
}

TEST_P(MlpGradientsRpcTest, AreRefusedIfTheAnswerIsTooLarge) {
  TestServerOptions options;
  options.infer.max_request_bytes = 1000;
  Start(options);
  executor_->Release();
  const auto refused = Infer(*server_, Request(3, {"d_up_proj", "d_gate_proj"}));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.status.error_message(),
              testing::MatchesRegex("response of 1099 bytes exceeds max_request_bytes 1000; "
                                    "gradients in shared memory regions need no room in messages"));
  EXPECT_TRUE(Infer(*server_, Request(3, {"d_up_proj"})).status.ok());
}

TEST_P(MlpGradientsRpcTest, AreRefusedIfTheyNeverFitIntoTheBudget) {
  TestServerOptions options;
  options.other_models = {};
  options.admission.memory_budget_bytes = 4096;
  Start(options);
  executor_->Release();
  const auto refused =
      Infer(*server_, Request(3, {"d_up_proj", "d_gate_proj", "d_down_proj", "dx"}));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.status.error_message(),
              testing::MatchesRegex("request needs 2[0-9]+ bytes at once; half of the memory "
                                    "budget of 4096 bytes is the most; gradients in shared memory "
                                    "regions need no room in messages"));
  EXPECT_TRUE(Infer(*server_, Request(3, {"d_up_proj"})).status.ok());
}

}  // namespace
}  // namespace swiglu::server
