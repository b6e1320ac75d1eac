// SPDX-License-Identifier: Apache-2.0
//
// ModelInfer over a real connection: what comes back and in which order, each refusal with its code
// and sentence, and that the server serves on after it. The executor here leaves the inputs where
// they are, so that outputs can be told apart by their bytes; values are checked in
// infer_property_test.cc.
#include <functional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/rpc/server_fixture.h"

namespace swiglu::server {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;

class InferRpcTest : public testing::Test {
 protected:
  InferRpcTest() { executor_.Release(); }
  ~InferRpcTest() override {
    // Whatever a test did, nothing is left behind.
    EXPECT_TRUE(server_.AwaitIdle());
    EXPECT_TRUE(Eventually([this] { return executor_.counting_pool().num_live() == 0; }));
  }

  HoldingExecutor executor_;
  TestServer server_{&executor_};
};

TEST_F(InferRpcTest, EchoesNamesIdVersionAndShape) {
  ModelInferRequest request = GoodRequest(kForwardFp16, {3, 5});
  request.set_id("id \xc3\xa9 7");
  const auto result = Infer(server_, request);
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  const ModelInferResponse& response = result.response;
  EXPECT_EQ(response.model_name(), "swiglu_forward_fp16");
  EXPECT_EQ(response.model_version(), "1");
  EXPECT_EQ(response.id(), "id \xc3\xa9 7");
  ASSERT_EQ(response.outputs_size(), 1);
  EXPECT_EQ(response.outputs(0).name(), "h");
  EXPECT_EQ(response.outputs(0).datatype(), "FP16");
  ASSERT_EQ(response.outputs(0).shape_size(), 2);
  EXPECT_EQ(response.outputs(0).shape(0), 3);
  EXPECT_EQ(response.outputs(0).shape(1), 5);
  ASSERT_EQ(response.raw_output_contents_size(), 1);
  EXPECT_EQ(response.raw_output_contents(0), std::string(30, '\1'));
}

TEST_F(InferRpcTest, GivesTheOutputsThatAreAskedForInThatOrder) {
  ModelInferRequest request = GoodRequest(kBackwardBf16, {2});
  auto response = Infer(server_, request).response;
  ASSERT_EQ(response.raw_output_contents_size(), 3);
  EXPECT_EQ(response.outputs(0).name(), "h");
  EXPECT_EQ(response.outputs(1).name(), "df");
  EXPECT_EQ(response.outputs(2).name(), "de");
  EXPECT_EQ(response.raw_output_contents(0), "\1\1\1\1");
  EXPECT_EQ(response.raw_output_contents(1), "\2\2\2\2");
  EXPECT_EQ(response.raw_output_contents(2), "\3\3\3\3");

  request.add_outputs()->set_name("de");
  request.add_outputs()->set_name("h");
  response = Infer(server_, request).response;
  ASSERT_EQ(response.raw_output_contents_size(), 2);
  EXPECT_EQ(response.outputs(0).name(), "de");
  EXPECT_EQ(response.outputs(1).name(), "h");
  EXPECT_EQ(response.raw_output_contents(0), "\3\3\3\3");
  EXPECT_EQ(response.raw_output_contents(1), "\1\1\1\1");
}

TEST_F(InferRpcTest, AnswersZeroElements) {
  for (int num_raw = 0; num_raw <= 2; ++num_raw) {
    ModelInferRequest request = GoodRequest(kForwardFp16, {0, 7});
    request.clear_raw_input_contents();
    for (int i = 0; i < num_raw; ++i) request.add_raw_input_contents("");
    const auto result = Infer(server_, request);
    ASSERT_TRUE(result.status.ok()) << result.status.error_message();
    ASSERT_EQ(result.response.outputs_size(), 1);
    EXPECT_EQ(result.response.outputs(0).shape(1), 7);
    ASSERT_EQ(result.response.raw_output_contents_size(), 1);
    EXPECT_TRUE(result.response.raw_output_contents(0).empty());
  }
  EXPECT_TRUE(Infer(server_, TypedRequest({}, {})).status.ok());
}

TEST_F(InferRpcTest, TakesLargeTensorsWhole) {
  const int64_t num_elements = 3'000'001;
  ModelInferRequest request = GoodRequest(kForwardFp16, {num_elements});
  std::string* e = request.mutable_raw_input_contents(0);
  for (size_t i = 0; i < e->size(); ++i) (*e)[i] = static_cast<char>(i * 2654435761u >> 13);
  const auto result = Infer(server_, request);
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  EXPECT_TRUE(result.response.raw_output_contents(0) == request.raw_input_contents(0));
}

// --- Refusals

struct Refusal {
  std::function<void(ModelInferRequest*)> edit;
  grpc::StatusCode code;
  std::string message;
};

TEST_F(InferRpcTest, RefusesBadRequestsAndServesOn) {
  const Refusal refusals[] = {
      {[](auto* r) { r->set_model_name("nope"); }, grpc::StatusCode::NOT_FOUND,
       std::string("unknown model 'nope'") + kKnownModels},
      {[](auto* r) { r->set_model_version("7"); }, grpc::StatusCode::NOT_FOUND,
       "model 'swiglu_forward_fp16' has version 1, not 7"},
      {[](auto* r) { r->set_model_version("x"); }, grpc::StatusCode::INVALID_ARGUMENT,
       "model version 'x' is not an integer"},
      {[](auto* r) { r->clear_inputs(); }, grpc::StatusCode::INVALID_ARGUMENT,
       "input 'e' is missing"},
      {[](auto* r) { r->mutable_inputs(1)->set_name("up"); }, grpc::StatusCode::INVALID_ARGUMENT,
       "unknown input 'up': 'swiglu_forward_fp16' takes e, g"},
      {[](auto* r) { r->mutable_inputs(1)->set_name("e"); }, grpc::StatusCode::INVALID_ARGUMENT,
       "input 'e' is given twice"},
      {[](auto* r) { r->add_outputs()->set_name("y"); }, grpc::StatusCode::INVALID_ARGUMENT,
       "unknown output 'y': 'swiglu_forward_fp16' gives h"},
      {[](auto* r) {
         r->add_outputs()->set_name("h");
         r->add_outputs()->set_name("h");
       },
       grpc::StatusCode::INVALID_ARGUMENT, "output 'h' is given twice"},
      {[](auto* r) { r->mutable_inputs(0)->set_datatype("FP32"); },
       grpc::StatusCode::INVALID_ARGUMENT, "input 'e' is FP32; 'swiglu_forward_fp16' takes FP16"},
      {[](auto* r) { r->mutable_inputs(1)->set_shape(0, 8); }, grpc::StatusCode::INVALID_ARGUMENT,
       "shape of 'g' is [8,8]; 'e' has [4,8]"},
      {[](auto* r) { r->mutable_inputs(0)->set_shape(0, -3); }, grpc::StatusCode::INVALID_ARGUMENT,
       "shape of 'e' has a negative dimension: [-3,8]"},
      {[](auto* r) { r->mutable_inputs(0)->set_shape(0, int64_t{1} << 61); },
       grpc::StatusCode::INVALID_ARGUMENT, "shape of 'e' is too large: [2305843009213693952,8]"},
      {[](auto* r) { r->set_raw_input_contents(0, std::string(96, 'x')); },
       grpc::StatusCode::INVALID_ARGUMENT, "input 'e' has 96 bytes; shape [4,8] of FP16 needs 64"},
      {[](auto* r) { r->clear_raw_input_contents(); }, grpc::StatusCode::INVALID_ARGUMENT,
       "input 'e' has no data; shape [4,8] of FP16 needs 64 bytes"},
      {[](auto* r) { r->add_raw_input_contents(""); }, grpc::StatusCode::INVALID_ARGUMENT,
       "raw_input_contents has 3 entries; the 2 inputs e, g take one each"},
      {[](auto* r) { r->mutable_inputs(0)->mutable_contents()->add_fp32_contents(1); },
       grpc::StatusCode::INVALID_ARGUMENT,
       "input 'e' has typed contents, and the request has raw_input_contents: give one kind of "
       "data"},
      {[](auto* r) { (*r->mutable_parameters())["sequence_id"].set_int64_param(1); },
       grpc::StatusCode::INVALID_ARGUMENT, "parameter 'sequence_id' is not supported"},
      {[](auto* r) {
         auto& parameters = *r->mutable_inputs(0)->mutable_parameters();
         parameters["shared_memory_region"].set_string_param("r0");
       },
       grpc::StatusCode::UNIMPLEMENTED,
       "'e' lies in shared memory region 'r0', but this server takes no shared memory"},
  };
  for (const Refusal& refusal : refusals) {
    ModelInferRequest request = GoodRequest(kForwardFp16, {4, 8});
    refusal.edit(&request);
    const auto refused = Infer(server_, request);
    EXPECT_CALL_STATUS(refused.status, refusal.code, refusal.message);
    EXPECT_EQ(refused.trailers.count("grpc-retry-pushback-ms"), 0u) << refusal.message;
    EXPECT_TRUE(Infer(server_, GoodRequest(kForwardFp16, {4, 8})).status.ok()) << refusal.message;
  }
}

TEST_F(InferRpcTest, ReportsEveryRequestOnce) {
  ModelInferRequest bad = GoodRequest(kBackwardBf16, {4, 8});
  bad.mutable_inputs(0)->set_name("x");
  ModelInferRequest unknown = bad;
  unknown.set_model_name("nope");
  const ModelInferRequest good = GoodRequest(kBackwardBf16, {4, 8});
  Infer(server_, good);
  Infer(server_, bad);
  Infer(server_, unknown);
  CallRaw(server_, kInferMethod, "\x0a");
  Infer(server_, good);

  const std::vector<RequestRecord> records = server_.observer.AwaitFinished(5);
  ASSERT_EQ(records.size(), 5u);
  const Model* model = FindModel(kBackwardBf16);
  EXPECT_EQ(records[0].model, model);
  EXPECT_EQ(records[0].status.code(), absl::StatusCode::kOk);
  EXPECT_EQ(records[0].num_elements, 32);
  EXPECT_EQ(records[0].bytes_in, static_cast<int64_t>(good.ByteSizeLong()));
  EXPECT_GT(records[0].bytes_out, 3 * 64);
  EXPECT_GT(records[0].times.receive.count(), 0);
  EXPECT_EQ(records[1].model, model);
  EXPECT_EQ(records[1].status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(records[1].bytes_out, 0);
  EXPECT_EQ(records[2].model, nullptr);
  EXPECT_EQ(records[2].status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(records[3].model, nullptr);
  EXPECT_EQ(records[3].status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(records[4].status.code(), absl::StatusCode::kOk);
  EXPECT_EQ(server_.observer.AwaitRejected(3), std::vector<Rejection>(3, Rejection::kInvalid));
  // And after each answer, that it was sent.
  EXPECT_EQ(server_.observer.AwaitSent(5).size(), 5u);
}

TEST_F(InferRpcTest, RefusesBytesThatAreNoMessage) {
  EXPECT_CALL_STATUS(CallRaw(server_, kInferMethod, "\x80").status,
                     grpc::StatusCode::INVALID_ARGUMENT,
                     "malformed ModelInferRequest: no field at byte 0");
  EXPECT_CALL_STATUS(CallRaw(server_, kInferMethod, "hello, is this HTTP?").status,
                     grpc::StatusCode::INVALID_ARGUMENT,
                     "malformed ModelInferRequest: field 13 at byte 2");
  EXPECT_CALL_STATUS(
      CallRaw(server_, kInferMethod, "").status, grpc::StatusCode::INVALID_ARGUMENT,
      "malformed ModelInferRequest: the message is empty, or its flag byte is neither "
      "0 nor 1");
  EXPECT_TRUE(Infer(server_, GoodRequest(kForwardFp16, {4})).status.ok());
}

TEST_F(InferRpcTest, RefusesAMessageCutAnywhere) {
  const std::string bytes = GoodRequest(kForwardFp16, {4}).SerializeAsString();
  for (size_t size = 0; size < bytes.size(); ++size) {
    const grpc::Status status = CallRaw(server_, kInferMethod, bytes.substr(0, size)).status;
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT)
        << size << ": " << status.error_message();
  }
  EXPECT_EQ(CallRaw(server_, kInferMethod, bytes).status.error_code(), grpc::StatusCode::OK);
}

TEST_F(InferRpcTest, RefusesACallWithoutAMessage) {
  grpc::GenericStub generic(server_.channel);
  grpc::CompletionQueue queue;
  PatientContext context;
  auto call = generic.PrepareCall(&context, kInferMethod, &queue);
  grpc::Status status;
  void* tag = nullptr;
  bool ok = false;
  call->StartCall(nullptr);
  ASSERT_TRUE(queue.Next(&tag, &ok) && ok);
  call->WritesDone(nullptr);
  ASSERT_TRUE(queue.Next(&tag, &ok));
  call->Finish(&status, nullptr);
  ASSERT_TRUE(queue.Next(&tag, &ok));
  EXPECT_CALL_STATUS(
      status, grpc::StatusCode::INVALID_ARGUMENT,
      "malformed ModelInferRequest: no whole message came, or its flag byte is neither 0 nor 1");
  EXPECT_EQ(server_.observer.AwaitCodes(1),
            std::vector<absl::StatusCode>{absl::StatusCode::kInvalidArgument});
}

TEST_F(InferRpcTest, ServesManyCallersAtOnce) {
  constexpr int kThreads = 8;
  constexpr int kCalls = 50;
  std::atomic<int> num_right{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, t, &num_right] {
      auto stub = inference::GRPCInferenceService::NewStub(server_.NewChannel());
      for (int i = 0; i < kCalls; ++i) {
        const Model& model = Models()[(t + i) % Models().size()];
        ModelInferRequest request = GoodRequest(std::string(model.name), {1 + i, 1 + t});
        request.set_id(std::to_string(t * kCalls + i));
        request.set_raw_input_contents(
            0, std::string(request.raw_input_contents(0).size(), static_cast<char>(t * 16 + i)));
        ModelInferResponse response;
        PatientContext context;
        const grpc::Status status = stub->ModelInfer(&context, request, &response);
        num_right += status.ok() && response.id() == request.id() &&
                     response.raw_output_contents(0) == request.raw_input_contents(0);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_right, kThreads * kCalls);
  EXPECT_EQ(server_.observer.AwaitFinished(kThreads * kCalls).size(),
            static_cast<size_t>(kThreads * kCalls));
}

// --- Addresses

TEST(RpcServerTest, ServesOnAUnixSocketAndRemovesItsFile) {
  char folder[] = "/tmp/rpc_XXXXXX";
  ASSERT_NE(::mkdtemp(folder), nullptr);
  const std::string path = std::string(folder) + "/socket";
  HoldingExecutor executor;
  executor.Release();
  {
    TestServerOptions options;
    options.address = "unix:" + path;
    TestServer server(&executor, options);
    EXPECT_EQ(server.rpc->address(), "unix:" + path);
    EXPECT_TRUE(Infer(server, GoodRequest(kForwardFp16, {4})).status.ok());
    EXPECT_EQ(::access(path.c_str(), F_OK), 0);
  }
  EXPECT_NE(::access(path.c_str(), F_OK), 0);
  EXPECT_EQ(::rmdir(folder), 0);
}

TEST(RpcServerTest, SaysThatItsPortIsInUse) {
  HoldingExecutor executor;
  TestServer first(&executor);
  auto second = RpcServer::Start({first.rpc->address()}, nullptr, nullptr);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(second.status().message(),
            "cannot listen on " + first.rpc->address() + ": Address already in use");
}

TEST(RpcServerTest, SaysThatItsFolderIsMissing) {
  auto server = RpcServer::Start({"unix:/nonexistent/folder/socket"}, nullptr, nullptr);
  EXPECT_EQ(server.status(),
            absl::FailedPreconditionError(
                "cannot listen on unix:/nonexistent/folder/socket: No such file or directory"));
}

}  // namespace
}  // namespace swiglu::server
