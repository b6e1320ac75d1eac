// SPDX-License-Identifier: Apache-2.0
//
// The library's calls of MLPs, against servers that answer, refuse and change their weights.
#include "swiglu/client_mlp.h"

#include <algorithm>
#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/bytes.h"
#include "tests/client/client_fixture.h"
#include "tests/client/fake_server.h"

namespace swiglu::client {
namespace {

using ::testing::ElementsAre;

// Rows of 64 elements in FP16: 128 bytes.
constexpr int64_t kHidden = 64;

class ClientMlpTest : public ClientTest {
 protected:
  // A server that keeps the requests and echoes x.
  FakeReply Keep(const FakeCall& call) {
    absl::MutexLock lock(&mutex_);
    requests_.emplace_back().ParseFromString(call.message);
    largest_ = std::max(largest_, call.message.size());
    return EchoInfer(call);
  }

  Shape ShapeOf(const inference::ModelInferRequest::InferInputTensor& input) {
    return {input.shape().begin(), input.shape().end()};
  }

  absl::Mutex mutex_;
  std::vector<inference::ModelInferRequest> requests_;
  size_t largest_ = 0;
  FakeServer server_{[this](const FakeCall& call) { return Keep(call); }};
};

TEST_F(ClientMlpTest, ForwardSendsXToTheModelOfTheLayer) {
  const auto client = Connect(server_.address());
  const std::string x = Pattern(6 * 128, 1);
  const auto result = client->Mlp("llama", 31).Forward(View(x, {2, 3, kHidden}));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(AsText(result->y.bytes()), x);
  EXPECT_EQ(result->y.shape(), (Shape{2, 3, kHidden}));
  EXPECT_EQ(result->weights_sha256, kFakeWeights);
  ASSERT_EQ(requests_.size(), 1u);
  EXPECT_EQ(requests_[0].model_name(), "mlp_llama_31_forward");
  ASSERT_EQ(requests_[0].inputs_size(), 1);
  EXPECT_EQ(requests_[0].inputs(0).name(), "x");
  EXPECT_EQ(requests_[0].inputs(0).datatype(), "FP16");
  EXPECT_EQ(ShapeOf(requests_[0].inputs(0)), (Shape{2, 3, kHidden}));
}

TEST_F(ClientMlpTest, BackwardSendsXAndDy) {
  const auto client = Connect(server_.address());
  const std::string x = Pattern(128, 1), dy = Pattern(128, 2);
  const auto result = client->Mlp("m", 0).Backward({Dtype::kBf16, {kHidden}, AsBytes(x)},
                                                   {Dtype::kBf16, {kHidden}, AsBytes(dy)});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(AsText(result->dx.bytes()), x);
  EXPECT_EQ(result->dx.dtype(), Dtype::kBf16);
  EXPECT_EQ(result->weights_sha256, kFakeWeights);
  ASSERT_EQ(requests_.size(), 1u);
  EXPECT_EQ(requests_[0].model_name(), "mlp_m_0_backward");
  ASSERT_EQ(requests_[0].inputs_size(), 2);
  EXPECT_EQ(requests_[0].inputs(1).name(), "dy");
  EXPECT_EQ(requests_[0].inputs(1).datatype(), "BF16");
  EXPECT_THAT(requests_[0].raw_input_contents(), ElementsAre(x, dy));
}

TEST_F(ClientMlpTest, ACopyOfTheHandleIsTheSameLayer) {
  const auto client = Connect(server_.address());
  const Mlp first = client->Mlp("m", 1);
  Mlp copy = client->Mlp("other", 2);
  copy = first;
  EXPECT_EQ(copy.forward_model(), "mlp_m_1_forward");
  EXPECT_EQ(copy.backward_model(), "mlp_m_1_backward");
  const std::string x = Pattern(128, 1);
  EXPECT_TRUE(copy.Forward(View(x, {kHidden})).ok());
  EXPECT_EQ(requests_[0].model_name(), "mlp_m_1_forward");
}

TEST_F(ClientMlpTest, NoTokensHaveAnEmptyResult) {
  const auto client = Connect(server_.address());
  const auto result = client->Mlp("m", 0).Forward(View("", {0, kHidden}));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->y.shape(), (Shape{0, kHidden}));
  EXPECT_EQ(result->weights_sha256, kFakeWeights);
}

TEST_F(ClientMlpTest, SplitsBetweenRows) {
  const auto client = Connect(server_.address(), {.num_connections = 3, .max_message_bytes = 4096});
  const Mlp mlp = client->Mlp("m", 0);
  const std::string x = Pattern(200 * 128, 1), dy = Pattern(200 * 128, 2);
  std::atomic<int64_t> last_chunks = 0;
  CallOptions options;
  options.on_chunk = [&](int64_t, int64_t num_chunks) { last_chunks = num_chunks; };
  const auto forward = mlp.Forward(View(x, {2, 100, kHidden}), options);
  ASSERT_TRUE(forward.ok()) << forward.status();
  EXPECT_EQ(AsText(forward->y.bytes()), x);
  EXPECT_EQ(forward->weights_sha256, kFakeWeights);
  // 26 rows of 128 bytes and what surrounds them have up to 4096 bytes.
  EXPECT_EQ(last_chunks, 8);
  ASSERT_EQ(requests_.size(), 8u);
  std::vector<int64_t> rows;
  for (const auto& request : requests_) {
    ASSERT_EQ(request.inputs(0).shape_size(), 2);
    EXPECT_EQ(request.inputs(0).shape(1), kHidden);
    rows.push_back(request.inputs(0).shape(0));
  }
  std::sort(rows.begin(), rows.end());
  EXPECT_THAT(rows, ElementsAre(18, 26, 26, 26, 26, 26, 26, 26));
  EXPECT_LE(largest_, 4096u);

  const auto backward = mlp.Backward(View(x, {200, kHidden}), View(dy, {200, kHidden}), options);
  ASSERT_TRUE(backward.ok()) << backward.status();
  EXPECT_EQ(AsText(backward->dx.bytes()), x);
  EXPECT_EQ(last_chunks, 16);
  EXPECT_LE(largest_, 4096u);
}

TEST_F(ClientMlpTest, WritesOverX) {
  const auto client = Connect(server_.address(), {.num_connections = 2, .max_message_bytes = 4096});
  std::string x = Pattern(100 * 128, 1);
  const std::string old_x = x;
  const auto weights = client->Mlp("m", 0).ForwardInto(View(x, {100, kHidden}), AsWritableBytes(x));
  EXPECT_EQ(weights.value(), kFakeWeights);
  EXPECT_EQ(x, old_x);
  std::string dx(x.size(), '?');
  EXPECT_TRUE(
      client->Mlp("m", 0)
          .BackwardInto(View(x, {100, kHidden}), View(x, {100, kHidden}), AsWritableBytes(dx))
          .ok());
  EXPECT_EQ(dx, old_x);
}

// call_forms.cc has the other two.
TEST_F(ClientMlpTest, WritesOverXAfterACallbackOrAFuture) {
  const auto client = Connect(server_.address());
  const Mlp mlp = client->Mlp("m", 0);
  std::string x = Pattern(2 * 128, 1);
  const std::string old_x = x, dy = Pattern(2 * 128, 2);
  absl::StatusOr<std::string> weights;
  absl::Notification is_called;
  mlp.ForwardIntoAsync(View(x, {2, kHidden}), AsWritableBytes(x),
                       [&](absl::StatusOr<std::string> its_weights) {
                         weights = std::move(its_weights);
                         is_called.Notify();
                       });
  is_called.WaitForNotification();
  EXPECT_EQ(weights.value(), kFakeWeights);
  EXPECT_EQ(x, old_x);
  weights = mlp.BackwardIntoAsync(View(x, {2, kHidden}), View(dy, {2, kHidden}), AsWritableBytes(x))
                .Get();
  EXPECT_EQ(weights.value(), kFakeWeights);
  EXPECT_EQ(x, old_x);
  ASSERT_EQ(requests_.size(), 2u);
  EXPECT_EQ(requests_[0].model_name(), "mlp_m_0_forward");
  EXPECT_EQ(requests_[1].model_name(), "mlp_m_0_backward");
  EXPECT_THAT(requests_[1].raw_input_contents(), ElementsAre(old_x, dy));
}

TEST_F(ClientMlpTest, ARowThatFitsIntoNoMessageIsNotSent) {
  const auto client = Connect(server_.address(), {.max_message_bytes = 4096});
  const std::string x = Pattern(2 * 4096, 1);
  EXPECT_EQ(client->Mlp("m", 0).Forward(View(x, {2, 2048})).status(),
            absl::ResourceExhaustedError("a row of 'x' takes a message of 4327 bytes; option "
                                         "max_message_bytes is 4096"));
  EXPECT_TRUE(requests_.empty());
}

// The chunks are smaller than a row.
TEST_F(ClientMlpTest, AChunkHasAtLeastOneRow) {
  const auto client = Connect(server_.address(), {.max_message_bytes = 5000, .chunk_bytes = 4096});
  const std::string x = Pattern(3 * 4096, 1);
  const auto result = client->Mlp("m", 0).Forward(View(x, {3, 2048}));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(AsText(result->y.bytes()), x);
  EXPECT_EQ(requests_.size(), 3u);
}

TEST_F(ClientTest, AnMlpsRowThatIsRefusedIsSentOnce) {
  std::atomic<int> num_calls = 0;
  FakeServer server([&](const FakeCall&) {
    ++num_calls;
    return Refusal(grpc::StatusCode::RESOURCE_EXHAUSTED, "too large");
  });
  const auto client = Connect(server.address(), {.chunk_bytes = 4096});
  const std::string x = Pattern(1 << 16, 1);
  EXPECT_EQ(Unnamed(client->Mlp("m", 0).Forward(View(x, {1 << 15})).status()),
            absl::ResourceExhaustedError("too large"));
  EXPECT_EQ(num_calls, 1);
}

// Answers with the first weights `num_first` times, then with others.
class ChangingServer {
 public:
  explicit ChangingServer(int num_first) : num_left_(num_first) {}

  const std::string& address() const { return server_.address(); }

 private:
  FakeReply Answer(const FakeCall& call) {
    inference::ModelInferRequest request;
    request.ParseFromString(call.message);
    inference::ModelInferResponse response = EchoInfer(request);
    if (--num_left_ < 0) SetWeights(std::string(64, 'f'), &response);
    return client::Answer(response);
  }

  std::atomic<int> num_left_;
  FakeServer server_{[this](const FakeCall& call) { return Answer(call); }};
};

TEST_F(ClientTest, WeightsThatChangeDuringACallOfAnMlpAreToldAndNotMixed) {
  const absl::Status changed =
      absl::AbortedError("the weights of 'mlp_m_0_forward' changed during the call; try again");
  const std::string x = Pattern(100 * 128, 1);
  // After the first of four chunks, and before the last.
  for (const int num_first : {1, 3}) {
    for (const int num_connections : {1, 4}) {
      ChangingServer server(num_first);
      const auto client = Connect(server.address(),
                                  {.num_connections = num_connections, .max_message_bytes = 4096});
      const Mlp mlp = client->Mlp("m", 0);
      EXPECT_EQ(mlp.Forward(View(x, {100, kHidden})).status(), changed);
      // Tried again, it has the new weights.
      const auto again = mlp.Forward(View(x, {100, kHidden}));
      ASSERT_TRUE(again.ok()) << again.status();
      EXPECT_EQ(again->weights_sha256, std::string(64, 'f'));
    }
  }
}

TEST_F(ClientTest, WeightsMayChangeBetweenCallsOfAnMlp) {
  ChangingServer server(1);
  const auto client = Connect(server.address());
  const std::string x = Pattern(128, 1);
  EXPECT_EQ(client->Mlp("m", 0).Forward(View(x, {kHidden}))->weights_sha256, kFakeWeights);
  EXPECT_EQ(client->Mlp("m", 0).Forward(View(x, {kHidden}))->weights_sha256, std::string(64, 'f'));
}

TEST_F(ClientTest, AnMlpsAnswerThatDoesNotNameItsWeightsIsInternal) {
  FakeServer server([](const FakeCall& call) {
    inference::ModelInferRequest request;
    request.ParseFromString(call.message);
    inference::ModelInferResponse response = EchoInfer(request);
    response.clear_parameters();
    return Answer(response);
  });
  const std::string x = Pattern(128, 1);
  EXPECT_EQ(Unnamed(Connect(server.address())->Mlp("m", 0).Forward(View(x, {kHidden})).status()),
            absl::InternalError(
                "bad response of 'mlp_m_0_forward': it does not say which weights computed it"));
}

TEST_F(ClientTest, AnMlpThatTheServerDoesNotHaveIsNotFound) {
  FakeServer server([](const FakeCall&) {
    return Refusal(grpc::StatusCode::NOT_FOUND, "unknown model 'mlp_m_7_forward'");
  });
  const std::string x = Pattern(128, 1);
  EXPECT_EQ(Unnamed(Connect(server.address())->Mlp("m", 7).Forward(View(x, {kHidden})).status()),
            absl::NotFoundError("unknown model 'mlp_m_7_forward'"));
}

// Backward with gradients of the weights, for I = 3: dx is x, and the gradients have patterns.
class GradientServer {
 public:
  const std::string& address() const { return server_.address(); }

  std::vector<std::string> methods;        // that were called, in order
  inference::ModelInferRequest request;    // the last one
  absl::Time deadline;                     // of the last call
  std::string intermediate_size = "3";     // as the metadata have it
  std::string datatype = "FP32";           // of the gradients
  grpc::Status status = grpc::Status::OK;  // of ModelInfer

 private:
  FakeReply Answer(const FakeCall& call) {
    methods.push_back(call.method);
    deadline = call.deadline;
    if (call.method == "ModelMetadata") {
      inference::ModelMetadataResponse response;
      (*response.mutable_properties())["intermediate_size"] = intermediate_size;
      return client::Answer(response);
    }
    request.ParseFromString(call.message);
    inference::ModelInferResponse response = EchoInfer(request);
    for (uint32_t k = 1; k < 4; ++k) {
      auto* output = response.add_outputs();
      output->set_name(request.outputs(static_cast<int>(k)).name());
      output->set_datatype(datatype);
      output->add_shape(k < 3 ? 3 : kHidden);
      output->add_shape(k < 3 ? kHidden : 3);
      response.add_raw_output_contents(Pattern(3 * kHidden * 4, 10 + k));
    }
    FakeReply reply = client::Answer(response);
    reply.status = status;
    return reply;
  }

  FakeServer server_{[this](const FakeCall& call) { return Answer(call); }};
};

TEST_F(ClientTest, AnMlpGivesGradientsOfItsWeights) {
  GradientServer server;
  const auto client = Connect(server.address());
  const std::string x = Pattern(2 * 128, 1), dy = Pattern(2 * 128, 2);
  const auto result = client->Mlp("m", 5).Gradients(View(x, {2, kHidden}), View(dy, {2, kHidden}));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(server.methods, ElementsAre("ModelMetadata", "ModelInfer"));
  EXPECT_EQ(server.request.model_name(), "mlp_m_5_backward");
  std::vector<std::string> names;
  for (const auto& output : server.request.outputs()) names.push_back(output.name());
  EXPECT_THAT(names, ElementsAre("dx", "d_gate_proj", "d_up_proj", "d_down_proj"));
  EXPECT_EQ(AsText(result->dx.bytes()), x);
  EXPECT_EQ(result->dx.dtype(), Dtype::kFp16);
  EXPECT_EQ(AsText(result->d_gate_proj.bytes()), Pattern(768, 11));
  EXPECT_EQ(result->d_gate_proj.shape(), (Shape{3, kHidden}));
  EXPECT_EQ(result->d_gate_proj.dtype(), Dtype::kFp32);
  EXPECT_EQ(AsText(result->d_up_proj.bytes()), Pattern(768, 12));
  EXPECT_EQ(result->d_up_proj.shape(), (Shape{3, kHidden}));
  EXPECT_EQ(AsText(result->d_down_proj.bytes()), Pattern(768, 13));
  EXPECT_EQ(result->d_down_proj.shape(), (Shape{kHidden, 3}));
  EXPECT_EQ(result->weights_sha256, kFakeWeights);
}

TEST_F(ClientTest, GradientsOfWeightsAreNeverSplit) {
  GradientServer server;
  const std::string x = Pattern(100 * 128, 1);
  const TensorView tokens = View(x, {100, kHidden});
  const auto small = Connect(server.address(), {.max_message_bytes = 20'000});
  const absl::Status status = small->Mlp("m", 0).Gradients(tokens, tokens).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              ::testing::MatchesRegex(
                  "gradients of weights take a message of 25[0-9]{3} bytes; option "
                  "max_message_bytes is 20000; gradients in regions of shared memory need no room "
                  "in messages"));
  EXPECT_THAT(server.methods, ElementsAre("ModelMetadata"));
  server.methods.clear();
  server.status = grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "too large");
  EXPECT_EQ(Unnamed(Connect(server.address(), {.chunk_bytes = 4096})
                        ->Mlp("m", 0)
                        .Gradients(tokens, tokens)
                        .status()),
            absl::ResourceExhaustedError("too large"));
  EXPECT_THAT(server.methods, ElementsAre("ModelMetadata", "ModelInfer"));
}

// The gradients make the answer larger than the request.
TEST_F(ClientTest, GradientsOfWeightsCountForTheSizeOfTheMessage) {
  GradientServer server;
  const std::string x = Pattern(128, 1);
  const auto client = Connect(server.address(), {.max_message_bytes = 4096});
  EXPECT_TRUE(client->Mlp("m", 0).Gradients(View(x, {kHidden}), View(x, {kHidden})).ok());
  server.intermediate_size = "6";
  EXPECT_EQ(client->Mlp("m", 0).Gradients(View(x, {kHidden}), View(x, {kHidden})).status().code(),
            absl::StatusCode::kResourceExhausted);
}

// The three gradients have 128 MB each. On error nobody writes them.
TEST_F(ClientTest, GradientsOfWeightsCountForTheTimeout) {
  GradientServer server;
  server.intermediate_size = "500000";
  server.status = grpc::Status(grpc::StatusCode::INTERNAL, "refused");
  const std::string x = Pattern(128, 1);
  const absl::Time start = absl::Now();
  EXPECT_EQ(Unnamed(Connect(server.address())
                        ->Mlp("m", 0)
                        .Gradients(View(x, {kHidden}), View(x, {kHidden}))
                        .status()),
            absl::InternalError("refused"));
  EXPECT_GE(server.deadline - start, absl::Seconds(33.84));
}

TEST_F(ClientTest, BadAnswersWithGradientsOfWeightsAreInternal) {
  GradientServer server;
  const auto client = Connect(server.address());
  const std::string x = Pattern(128, 1);
  const auto error = [&] {
    return client->Mlp("m", 0).Gradients(View(x, {kHidden}), View(x, {kHidden})).status();
  };
  server.datatype = "FP16";
  EXPECT_EQ(Unnamed(error()), absl::InternalError("bad response of 'mlp_m_0_backward': output "
                                                  "'d_gate_proj' is FP16; expected FP32"));
  server.intermediate_size = "4";
  EXPECT_EQ(Unnamed(error()),
            absl::InternalError("bad response of 'mlp_m_0_backward': output 'd_gate_proj' has 768 "
                                "bytes; shape [4,64] of FP32 needs 1024"));
  for (const char* size : {"", "0", "-3", "x"}) {
    server.intermediate_size = size;
    EXPECT_EQ(error(), absl::InternalError("bad metadata of 'mlp_m_0_backward': they do not tell "
                                           "the intermediate size"));
  }
  EXPECT_EQ(client->Mlp("m", 0).Gradients(View(x, {kHidden}), View(x, {64, 1})).status(),
            absl::InvalidArgumentError("shape of 'dy' is [64,1]; 'x' has [64]"));
}

TEST_F(ClientTest, GradientsOfWeightsGoToTheCallersMemory) {
  GradientServer server;
  const auto client = Connect(server.address());
  const std::string dy = Pattern(128, 2);
  std::string x = Pattern(128, 1), gate(768, '?'), up = gate, down = gate, odd(770, '?'),
              more(1024, '?'), none;
  const auto call = [&](std::string& gate_out, std::string& up_out) {
    return client->Mlp("m", 0)
        .GradientsInto(View(x, {kHidden}), View(dy, {kHidden}),
                       {AsWritableBytes(x), AsWritableBytes(gate_out), AsWritableBytes(up_out),
                        AsWritableBytes(down)})
        .status();
  };
  EXPECT_EQ(call(odd, up),
            absl::InvalidArgumentError("output 'd_gate_proj' has 770 bytes; it takes "
                                       "FP32 rows of 64 elements"));
  EXPECT_EQ(call(none, up), absl::InvalidArgumentError("output 'd_gate_proj' has 0 bytes; it takes "
                                                       "FP32 rows of 64 elements"));
  EXPECT_EQ(call(gate, more), absl::InvalidArgumentError("output 'd_up_proj' has 1024 bytes; "
                                                         "'d_down_proj' has 768"));
  EXPECT_TRUE(server.methods.empty());
  EXPECT_TRUE(call(gate, up).ok());
  EXPECT_EQ(gate, Pattern(768, 11));
  EXPECT_EQ(up, Pattern(768, 12));
  EXPECT_EQ(down, Pattern(768, 13));
  EXPECT_THAT(server.methods, ElementsAre("ModelInfer"));
}

TEST_F(ClientTest, GradientsOfWeightsComeByAFutureOrACallback) {
  GradientServer server;
  const auto client = Connect(server.address());
  const Mlp mlp = client->Mlp("m", 0);
  const std::string x = Pattern(128, 1), dy = Pattern(128, 2);
  std::string dx, gate, up, down;
  const auto outputs = [&]() -> MlpGradientOutputs {
    dx.assign(128, '?');
    gate.assign(768, '?');
    up = down = gate;
    return {AsWritableBytes(dx), AsWritableBytes(gate), AsWritableBytes(up), AsWritableBytes(down)};
  };
  const auto expect = [&](const absl::StatusOr<std::string>& weights) {
    ASSERT_TRUE(weights.ok()) << weights.status();
    EXPECT_EQ(*weights, kFakeWeights);
    EXPECT_EQ(dx, x);
    EXPECT_EQ(gate, Pattern(768, 11));
    EXPECT_EQ(up, Pattern(768, 12));
    EXPECT_EQ(down, Pattern(768, 13));
  };
  expect(mlp.GradientsIntoAsync(View(x, {kHidden}), View(dy, {kHidden}), outputs()).Get());
  absl::StatusOr<std::string> weights;
  absl::Notification is_called;
  mlp.GradientsIntoAsync(View(x, {kHidden}), View(dy, {kHidden}), outputs(),
                         [&](absl::StatusOr<std::string> its_weights) {
                           weights = std::move(its_weights);
                           is_called.Notify();
                         });
  is_called.WaitForNotification();
  expect(weights);
}

TEST_F(ClientMlpTest, RefusesBadTensorsBeforeItSendsAnything) {
  const auto client = Connect(server_.address());
  const Mlp mlp = client->Mlp("m", 0);
  const std::string bytes = Pattern(256, 1);
  const auto tensor = [&](Dtype dtype, Shape shape, size_t size) {
    return TensorView{dtype, std::move(shape), AsBytes(bytes).subspan(0, size)};
  };
  const TensorView x = tensor(Dtype::kFp16, {2, kHidden}, 256);
  const std::vector<std::pair<absl::Status, std::string>> cases = {
      {mlp.Forward(tensor(Dtype::kFp32, {kHidden}, 256)).status(),
       "input 'x' is FP32; 'mlp_m_0_forward' takes FP16 or BF16"},
      {mlp.Forward(tensor(static_cast<Dtype>(9), {kHidden}, 128)).status(),
       "dtype of 'x' is 9; it is FP16, BF16 or FP32"},
      {mlp.Forward(tensor(Dtype::kFp16, {}, 2)).status(),
       "last dimension of 'x' is missing; 'mlp_m_0_forward' takes its hidden size"},
      {mlp.Forward(tensor(Dtype::kFp16, {2, 0}, 0)).status(),
       "last dimension of 'x' is 0; 'mlp_m_0_forward' takes its hidden size"},
      {mlp.Forward(tensor(Dtype::kFp16, {-1, kHidden}, 128)).status(),
       "shape of 'x' has a negative dimension: [-1,64]"},
      {mlp.Forward(tensor(Dtype::kFp16, {2, kHidden}, 254)).status(),
       "input 'x' has 254 bytes; shape [2,64] of FP16 needs 256"},
      {mlp.Backward(x, tensor(Dtype::kBf16, {2, kHidden}, 256)).status(),
       "input 'dy' is BF16; 'mlp_m_0_backward' takes FP16"},
      {mlp.Backward(x, tensor(Dtype::kFp32, {2, kHidden}, 256)).status(),
       "input 'dy' is FP32; 'mlp_m_0_backward' takes FP16 or BF16"},
      {mlp.Backward(x, tensor(Dtype::kFp16, {kHidden}, 128)).status(),
       "shape of 'dy' is [64]; 'x' has [2,64]"},
      {mlp.Backward(x, tensor(Dtype::kFp16, {kHidden, 2}, 256)).status(),
       "shape of 'dy' is [64,2]; 'x' has [2,64]"},
      {mlp.CheckForward(tensor(Dtype::kFp32, {kHidden}, 256)),
       "input 'x' is FP32; 'mlp_m_0_forward' takes FP16 or BF16"},
      {mlp.CheckBackward(x, tensor(Dtype::kFp16, {kHidden}, 128)),
       "shape of 'dy' is [64]; 'x' has [2,64]"}};
  for (const auto& [status, sentence] : cases) {
    EXPECT_EQ(status, absl::InvalidArgumentError(sentence));
  }
  std::string y(128, '?');
  EXPECT_EQ(mlp.ForwardInto(x, AsWritableBytes(y)).status(),
            absl::InvalidArgumentError("output 'y' has 128 bytes; the inputs have 256"));
  EXPECT_EQ(
      mlp.ForwardInto({Dtype::kFp16, {kHidden}, RegionPart{"r", 128, 64, 128}},
                      OutputTensor(AsWritableBytes(y)))
          .status(),
      absl::InvalidArgumentError("'x' is not inside region 'r': 128 bytes at offset 64 of 128"));
  EXPECT_TRUE(requests_.empty());
}

}  // namespace
}  // namespace swiglu::client
