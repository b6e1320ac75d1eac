// SPDX-License-Identifier: Apache-2.0
//
// Every RPC that answers from the server's own state, over a real connection, with its whole answer
// and its errors; the ones that are not offered; and methods that do not exist.
#include <chrono>
#include <string>
#include <utility>

#include "google/protobuf/text_format.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "tests/batching/mlp_models.h"
#include "tests/rpc/server_fixture.h"

namespace swiglu::server {
namespace {

using google::protobuf::util::MessageDifferencer;
using inference::GRPCInferenceService;

constexpr char kService[] = "/inference.GRPCInferenceService/";

class ControlRpcTest : public testing::Test {
 protected:
  explicit ControlRpcTest(TestServerOptions options = {})
      : server_(&executor_, std::move(options)) {
    executor_.Release();
  }

  // Calls a method of the stub with that request.
  template <typename Request, typename Response>
  Result<Response> Call(grpc::Status (GRPCInferenceService::Stub::*method)(grpc::ClientContext*,
                                                                           const Request&,
                                                                           Response*),
                        const Request& request) {
    Result<Response> result;
    PatientContext context;
    result.status = (server_.stub.get()->*method)(&context, request, &result.response);
    return result;
  }

  HoldingExecutor executor_;
  TestServer server_;
};

// The request or response that `text` describes.
template <typename Message>
Message FromText(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message)) << text;
  return message;
}

template <typename Message>
void ExpectAnswer(const Result<Message>& result, const std::string& expected_text) {
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  EXPECT_TRUE(MessageDifferencer::Equals(result.response, FromText<Message>(expected_text)))
      << result.response.DebugString();
}

TEST_F(ControlRpcTest, IsLiveAndReady) {
  ExpectAnswer(Call(&GRPCInferenceService::Stub::ServerLive, inference::ServerLiveRequest()),
               "live: true");
  ExpectAnswer(Call(&GRPCInferenceService::Stub::ServerReady, inference::ServerReadyRequest()),
               "ready: true");
}

TEST_F(ControlRpcTest, IsLiveButNotReadyOnceItStopsServing) {
  server_.health.StopServing();
  ExpectAnswer(Call(&GRPCInferenceService::Stub::ServerLive, inference::ServerLiveRequest()),
               "live: true");
  ExpectAnswer(Call(&GRPCInferenceService::Stub::ServerReady, inference::ServerReadyRequest()), "");
  ExpectAnswer(Call(&GRPCInferenceService::Stub::ModelReady,
                    FromText<inference::ModelReadyRequest>("name: 'swiglu_forward_fp16'")),
               "");
}

TEST_F(ControlRpcTest, IsNeitherWithAFailedDevice) {
  executor_.Fail();
  ExpectAnswer(Call(&GRPCInferenceService::Stub::ServerLive, inference::ServerLiveRequest()), "");
  ExpectAnswer(Call(&GRPCInferenceService::Stub::ServerReady, inference::ServerReadyRequest()), "");
}

TEST_F(ControlRpcTest, SaysWhichModelsAreReady) {
  for (const Model& model : Models()) {
    inference::ModelReadyRequest request;
    request.set_name(std::string(model.name));
    ExpectAnswer(Call(&GRPCInferenceService::Stub::ModelReady, request), "ready: true");
    request.set_version("1");
    ExpectAnswer(Call(&GRPCInferenceService::Stub::ModelReady, request), "ready: true");
    request.set_version("2");
    ExpectAnswer(Call(&GRPCInferenceService::Stub::ModelReady, request), "");
  }
  ExpectAnswer(Call(&GRPCInferenceService::Stub::ModelReady,
                    FromText<inference::ModelReadyRequest>("name: 'nope'")),
               "");
}

TEST_F(ControlRpcTest, DescribesItself) {
  ExpectAnswer(
      Call(&GRPCInferenceService::Stub::ServerMetadata, inference::ServerMetadataRequest()),
      "name: 'swiglu-server' version: '1.2.3' extensions: 'binary_tensor_data' "
      "extensions: 'model_configuration' extensions: 'parameters' extensions: 'schedule_policy' "
      "extensions: 'statistics'");
}

TEST_F(ControlRpcTest, DescribesModels) {
  ExpectAnswer(Call(&GRPCInferenceService::Stub::ModelMetadata,
                    FromText<inference::ModelMetadataRequest>("name: 'swiglu_forward_fp16'")),
               R"pb(
                 name: 'swiglu_forward_fp16'
                 versions: '1'
                 platform: 'swiglu'
                 inputs {
                   name: 'e'
                   datatype: 'FP16'
                   shape: [ -1, -1, -1 ]
                 }
                 inputs {
                   name: 'g'
                   datatype: 'FP16'
                   shape: [ -1, -1, -1 ]
                 }
                 outputs {
                   name: 'h'
                   datatype: 'FP16'
                   shape: [ -1, -1, -1 ]
                 }
                 properties { key: 'device' value: 'holding' }
                 properties {
                   key: 'shape'
                   value: 'any rank and sizes; the same for all tensors of a request'
                 }
               )pb");
  ExpectAnswer(
      Call(&GRPCInferenceService::Stub::ModelMetadata,
           FromText<inference::ModelMetadataRequest>("name: 'swiglu_backward_bf16' version: '1'")),
      R"pb(
        name: 'swiglu_backward_bf16'
        versions: '1'
        platform: 'swiglu'
        inputs {
          name: 'DW'
          datatype: 'BF16'
          shape: [ -1, -1 ]
        }
        inputs {
          name: 'e'
          datatype: 'BF16'
          shape: [ -1, -1 ]
        }
        inputs {
          name: 'g'
          datatype: 'BF16'
          shape: [ -1, -1 ]
        }
        outputs {
          name: 'h'
          datatype: 'BF16'
          shape: [ -1, -1 ]
        }
        outputs {
          name: 'df'
          datatype: 'BF16'
          shape: [ -1, -1 ]
        }
        outputs {
          name: 'de'
          datatype: 'BF16'
          shape: [ -1, -1 ]
        }
        properties { key: 'device' value: 'holding' }
        properties {
          key: 'shape'
          value: 'any rank and sizes; the same for all tensors of a request'
        }
      )pb");
}

TEST_F(ControlRpcTest, GivesConfigurations) {
  ExpectAnswer(
      Call(&GRPCInferenceService::Stub::ModelConfig,
           FromText<inference::ModelConfigRequest>("name: 'swiglu_backward_fp32'")),
      R"pb(
        config {
          name: 'swiglu_backward_fp32'
          platform: 'swiglu'
          backend: 'swiglu'
          version_policy { specific { versions: 1 } }
          input {
            name: 'DW'
            data_type: TYPE_FP32
            dims: [ -1, -1 ]
          }
          input {
            name: 'e'
            data_type: TYPE_FP32
            dims: [ -1, -1 ]
          }
          input {
            name: 'g'
            data_type: TYPE_FP32
            dims: [ -1, -1 ]
          }
          output {
            name: 'h'
            data_type: TYPE_FP32
            dims: [ -1, -1 ]
          }
          output {
            name: 'df'
            data_type: TYPE_FP32
            dims: [ -1, -1 ]
          }
          output {
            name: 'de'
            data_type: TYPE_FP32
            dims: [ -1, -1 ]
          }
          instance_group { name: 'lanes' kind: KIND_CPU count: 1 }
          dynamic_batching {}
          parameters {
            key: 'shape'
            value { string_value: 'any rank and sizes; the same for all tensors of a request' }
          }
          model_transaction_policy {}
        }
      )pb");
}

TEST(DelayedControlRpcTest, TellsHowLongRequestsWaitForCompany) {
  HoldingExecutor executor(1);
  TestServerOptions options;
  options.batching.max_queue_delay = std::chrono::milliseconds(2);
  TestServer server(&executor, options);
  inference::ModelConfigRequest request;
  request.set_name(kForwardFp16);
  PatientContext context;
  inference::ModelConfigResponse response;
  ASSERT_TRUE(server.stub->ModelConfig(&context, request, &response).ok());
  EXPECT_EQ(response.config().dynamic_batching().max_queue_delay_microseconds(), 2000u);
}

// perf_analyzer takes the names from one and looks them up in the other.
TEST_F(ControlRpcTest, NamesTensorsAlikeInMetadataAndConfiguration) {
  for (const Model& model : Models()) {
    inference::ModelMetadataRequest metadata_request;
    metadata_request.set_name(std::string(model.name));
    inference::ModelConfigRequest config_request;
    config_request.set_name(std::string(model.name));
    const auto metadata = Call(&GRPCInferenceService::Stub::ModelMetadata, metadata_request);
    const auto config = Call(&GRPCInferenceService::Stub::ModelConfig, config_request);
    const auto& inputs = metadata.response.inputs();
    ASSERT_EQ(inputs.size(), config.response.config().input_size());
    for (int i = 0; i < inputs.size(); ++i) {
      EXPECT_EQ(inputs[i].name(), config.response.config().input(i).name());
      EXPECT_EQ("TYPE_" + inputs[i].datatype(),
                inference::DataType_Name(config.response.config().input(i).data_type()));
    }
  }
}

TEST_F(ControlRpcTest, ListsTheModels) {
  const std::string all =
      "models { name: 'swiglu_forward_fp16' version: '1' state: 'READY' }"
      "models { name: 'swiglu_forward_bf16' version: '1' state: 'READY' }"
      "models { name: 'swiglu_forward_fp32' version: '1' state: 'READY' }"
      "models { name: 'swiglu_backward_fp16' version: '1' state: 'READY' }"
      "models { name: 'swiglu_backward_bf16' version: '1' state: 'READY' }"
      "models { name: 'swiglu_backward_fp32' version: '1' state: 'READY' }";
  inference::RepositoryIndexRequest request;
  ExpectAnswer(Call(&GRPCInferenceService::Stub::RepositoryIndex, request), all);
  request.set_ready(true);
  ExpectAnswer(Call(&GRPCInferenceService::Stub::RepositoryIndex, request), all);
}

TEST_F(ControlRpcTest, ListsNoReadyModelOnceItStopsServing) {
  server_.health.StopServing();
  inference::RepositoryIndexRequest request;
  request.set_ready(true);
  ExpectAnswer(Call(&GRPCInferenceService::Stub::RepositoryIndex, request), "");
  request.set_ready(false);
  const auto all = Call(&GRPCInferenceService::Stub::RepositoryIndex, request);
  ASSERT_EQ(all.response.models_size(), 6);
  EXPECT_EQ(all.response.models(0).state(), "UNAVAILABLE");
  EXPECT_EQ(all.response.models(0).reason(), "server is draining");
}

TEST_F(ControlRpcTest, CountsWhatItServed) {
  ASSERT_TRUE(Infer(server_, GoodRequest(kForwardFp16, {2})).status.ok());
  ASSERT_TRUE(Infer(server_, GoodRequest(kForwardFp16, {3})).status.ok());
  inference::ModelInferRequest bad = GoodRequest(kForwardFp16, {3});
  bad.clear_raw_input_contents();
  ASSERT_FALSE(Infer(server_, bad).status.ok());

  const auto result =
      Call(&GRPCInferenceService::Stub::ModelStatistics,
           FromText<inference::ModelStatisticsRequest>("name: 'swiglu_forward_fp16'"));
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  ASSERT_EQ(result.response.model_stats_size(), 1);
  const inference::ModelStatistics& figures = result.response.model_stats(0);
  EXPECT_EQ(figures.name(), "swiglu_forward_fp16");
  EXPECT_EQ(figures.version(), "1");
  EXPECT_GT(figures.last_inference(), 1'600'000'000'000u);  // in this century, in ms
  EXPECT_EQ(figures.inference_count(), 2u);
  EXPECT_EQ(figures.execution_count(), 2u);
  const inference::InferStatistics& stats = figures.inference_stats();
  EXPECT_EQ(stats.success().count(), 2u);
  EXPECT_GT(stats.success().ns(), 0u);
  EXPECT_EQ(stats.fail().count(), 1u);
  EXPECT_EQ(stats.queue().count(), 2u);
  EXPECT_EQ(stats.compute_input().count(), 2u);
  EXPECT_EQ(stats.compute_infer().count(), 2u);
  EXPECT_EQ(stats.compute_output().count(), 2u);
  ASSERT_EQ(figures.batch_stats_size(), 1);
  EXPECT_EQ(figures.batch_stats(0).batch_size(), 1u);
  EXPECT_EQ(figures.batch_stats(0).compute_infer().count(), 2u);
}

TEST_F(ControlRpcTest, GivesStatisticsOfAllModelsAtOnce) {
  const auto result =
      Call(&GRPCInferenceService::Stub::ModelStatistics, inference::ModelStatisticsRequest());
  ASSERT_EQ(result.response.model_stats_size(), 6);
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(result.response.model_stats(i).name(), Models()[i].name);
    EXPECT_EQ(result.response.model_stats(i).inference_count(), 0u);
    EXPECT_EQ(result.response.model_stats(i).last_inference(), 0u);
    EXPECT_TRUE(result.response.model_stats(i).has_inference_stats());
  }
}

// The three per-model methods refuse in the same words.
TEST_F(ControlRpcTest, RefusesUnknownModelsAndVersions) {
  const auto check = [this](auto method, auto request) {
    request.set_name("nope");
    EXPECT_CALL_STATUS(Call(method, request).status, grpc::StatusCode::NOT_FOUND,
                       std::string("unknown model 'nope'") + kKnownModels);
    request.set_name(kForwardFp16);
    request.set_version("7");
    EXPECT_CALL_STATUS(Call(method, request).status, grpc::StatusCode::NOT_FOUND,
                       "model 'swiglu_forward_fp16' has version 1, not 7");
    request.set_version("x");
    EXPECT_CALL_STATUS(Call(method, request).status, grpc::StatusCode::INVALID_ARGUMENT,
                       "model version 'x' is not an integer");
  };
  check(&GRPCInferenceService::Stub::ModelMetadata, inference::ModelMetadataRequest());
  check(&GRPCInferenceService::Stub::ModelConfig, inference::ModelConfigRequest());
  check(&GRPCInferenceService::Stub::ModelStatistics, inference::ModelStatisticsRequest());
}

TEST_F(ControlRpcTest, RefusesMalformedMessages) {
  const google::protobuf::LogSilencer silencer;
  EXPECT_CALL_STATUS(CallRaw(server_, std::string(kService) + "ModelConfig", "\x0a").status,
                     grpc::StatusCode::INVALID_ARGUMENT,
                     "malformed ModelConfigRequest: in its 1 bytes");
  EXPECT_CALL_STATUS(CallRaw(server_, "/grpc.health.v1.Health/Check", "\x0a\x02\xff\xfe").status,
                     grpc::StatusCode::INVALID_ARGUMENT,
                     "malformed HealthCheckRequest: in its 4 bytes");
  ExpectAnswer(Call(&GRPCInferenceService::Stub::ServerLive, inference::ServerLiveRequest()),
               "live: true");
}

TEST_F(ControlRpcTest, GivesAReasonWhereItOffersNothing) {
  const std::pair<std::string, std::string> methods[] = {
      {"SystemSharedMemoryStatus", "this server takes no shared memory"},
      {"SystemSharedMemoryRegister", "this server takes no shared memory"},
      {"SystemSharedMemoryUnregister", "this server takes no shared memory"},
      {"CudaSharedMemoryStatus", "this server takes no shared memory"},
      {"CudaSharedMemoryRegister", "this server takes no shared memory"},
      {"CudaSharedMemoryUnregister", "this server takes no shared memory"},
      {"RepositoryModelLoad", "this server runs without --mlp_control"},
      {"RepositoryModelUnload", "the models of this server are fixed"},
      {"TraceSetting", "this server keeps no traces"},
      {"LogSettings", "logging is set by the server's flags alone"}};
  for (const auto& [method, reason] : methods) {
    EXPECT_CALL_STATUS(CallRaw(server_, kService + method, "").status,
                       grpc::StatusCode::UNIMPLEMENTED, method + ": " + reason);
  }
}

// So that no method of the service is forgotten.
TEST_F(ControlRpcTest, KnowsEveryMethodOfTheService) {
  const auto* service = google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(
      "inference.GRPCInferenceService");
  ASSERT_NE(service, nullptr);
  for (int i = 0; i < service->method_count(); ++i) {
    const grpc::Status status = CallRaw(server_, kService + service->method(i)->name(), "").status;
    EXPECT_EQ(status.error_message().find("unknown method"), std::string::npos)
        << service->method(i)->name() << ": " << status.error_message();
  }
}

TEST_F(ControlRpcTest, RefusesMethodsThatDoNotExist) {
  for (const std::string method :
       {"/inference.GRPCInferenceService/Nope", "/other.Service/ServerLive", "/x"}) {
    EXPECT_CALL_STATUS(CallRaw(server_, method, "body").status, grpc::StatusCode::UNIMPLEMENTED,
                       "unknown method '" + method + "'");
  }
}

// --- Models of an MLP

TestServerOptions WithMlp() {
  TestServerOptions options;
  options.other_models = MlpModels("tiny", 2, 576);
  return options;
}

class MlpControlRpcTest : public ControlRpcTest {
 protected:
  MlpControlRpcTest() : ControlRpcTest(WithMlp()) {}
};

TEST_F(MlpControlRpcTest, DescribesModelsWithRows) {
  ExpectAnswer(
      Call(&GRPCInferenceService::Stub::ModelMetadata,
           FromText<inference::ModelMetadataRequest>("name: 'mlp_tiny_1_backward'")),
      R"pb(
        name: 'mlp_tiny_1_backward'
        versions: '1'
        platform: 'swiglu_mlp'
        inputs {
          name: 'x'
          datatype: 'BF16'
          shape: [ -1, 576 ]
        }
        inputs {
          name: 'dy'
          datatype: 'BF16'
          shape: [ -1, 576 ]
        }
        outputs {
          name: 'dx'
          datatype: 'BF16'
          shape: [ -1, 576 ]
        }
        outputs {
          name: 'd_gate_proj'
          datatype: 'FP32'
          shape: [ 1536, 576 ]
        }
        outputs {
          name: 'd_up_proj'
          datatype: 'FP32'
          shape: [ 1536, 576 ]
        }
        outputs {
          name: 'd_down_proj'
          datatype: 'FP32'
          shape: [ 576, 1536 ]
        }
        properties { key: 'device' value: 'holding' }
        properties { key: 'intermediate_size' value: '1536' }
        properties { key: 'layer' value: '1' }
        properties {
          key: 'shape'
          value: 'any rank above 0; the last size is 576, the others are any; the same for '
                 'all tensors of a request; gradients of weights come only if a request names '
                 'them'
        }
      )pb");
}

TEST_F(MlpControlRpcTest, ConfiguresModelsWithRows) {
  const auto result = Call(&GRPCInferenceService::Stub::ModelConfig,
                           FromText<inference::ModelConfigRequest>("name: 'mlp_tiny_0_forward'"));
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  const inference::ModelConfig& config = result.response.config();
  EXPECT_EQ(config.platform(), "swiglu_mlp");
  ASSERT_EQ(config.input_size(), 1);
  EXPECT_EQ(config.input(0).ShortDebugString(),
            "name: \"x\" data_type: TYPE_BF16 dims: -1 dims: 576");
  ASSERT_EQ(config.output_size(), 1);
  EXPECT_EQ(config.output(0).ShortDebugString(),
            "name: \"y\" data_type: TYPE_BF16 dims: -1 dims: 576");
}

TEST_F(MlpControlRpcTest, ConfiguresGradients) {
  const auto result = Call(&GRPCInferenceService::Stub::ModelConfig,
                           FromText<inference::ModelConfigRequest>("name: 'mlp_tiny_0_backward'"));
  const inference::ModelConfig& config = result.response.config();
  ASSERT_EQ(config.output_size(), 4);
  EXPECT_EQ(config.output(0).ShortDebugString(),
            "name: \"dx\" data_type: TYPE_BF16 dims: -1 dims: 576");
  EXPECT_EQ(config.output(3).ShortDebugString(),
            "name: \"d_down_proj\" data_type: TYPE_FP32 dims: 576 dims: 1536");
}

TEST_F(MlpControlRpcTest, ListsItsModelsBehindTheSix) {
  const auto index =
      Call(&GRPCInferenceService::Stub::RepositoryIndex, inference::RepositoryIndexRequest());
  ASSERT_EQ(index.response.models_size(), 10);
  EXPECT_EQ(index.response.models(5).name(), "swiglu_backward_fp32");
  EXPECT_EQ(index.response.models(6).name(), "mlp_tiny_0_forward");
  EXPECT_EQ(index.response.models(9).name(), "mlp_tiny_1_backward");
}

TEST_F(MlpControlRpcTest, GivesEachModelItsOwnStatistics) {
  ASSERT_TRUE(Infer(server_, GoodRequest(*server_.models.Find("mlp_tiny_1_forward"), {3, 576}))
                  .status.ok());
  const auto all =
      Call(&GRPCInferenceService::Stub::ModelStatistics, inference::ModelStatisticsRequest());
  ASSERT_EQ(all.response.model_stats_size(), 10);
  for (const auto& figures : all.response.model_stats()) {
    EXPECT_EQ(figures.inference_count(), figures.name() == "mlp_tiny_1_forward" ? 1u : 0u);
  }
  ExpectAnswer(Call(&GRPCInferenceService::Stub::ModelReady,
                    FromText<inference::ModelReadyRequest>("name: 'mlp_tiny_1_forward'")),
               "ready: true");
}

}  // namespace
}  // namespace swiglu::server
