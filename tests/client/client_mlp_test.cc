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
  EXPECT_EQ(client->Mlp("m", 0).Forward(View(x, {1 << 15})).status(),
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
  EXPECT_EQ(Connect(server.address())->Mlp("m", 0).Forward(View(x, {kHidden})).status(),
            absl::InternalError(
                "bad response of 'mlp_m_0_forward': it does not say which weights computed it"));
}

TEST_F(ClientTest, AnMlpThatTheServerDoesNotHaveIsNotFound) {
  FakeServer server([](const FakeCall&) {
    return Refusal(grpc::StatusCode::NOT_FOUND, "unknown model 'mlp_m_7_forward'");
  });
  const std::string x = Pattern(128, 1);
  EXPECT_EQ(Connect(server.address())->Mlp("m", 7).Forward(View(x, {kHidden})).status(),
            absl::NotFoundError("unknown model 'mlp_m_7_forward'"));
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
