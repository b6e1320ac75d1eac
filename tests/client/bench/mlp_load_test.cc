// SPDX-License-Identifier: Apache-2.0
//
// Loads on MLPs by both clients, and the comparison of answers, against a server that echoes x.
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "client/bench/first_answers.h"
#include "client/bench/load.h"
#include "client/bench/mlp_model.h"
#include "client/bench/shared_tensors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/fake_regions.h"
#include "tests/client/fake_server.h"
#include "tests/client/unnamed.h"

namespace swiglu::bench {
namespace {

using client::Dtype;
using client::FakeCall;
using client::FakeRegions;
using client::FakeReply;
using client::FakeServer;
using client::Shape;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Connector = absl::StatusOr<std::unique_ptr<Load>>(const LoadOptions&,
                                                        const std::vector<RequestData>*);

// Metadata of the MLP m: its layers 0 to 2 take rows of 64 BF16 elements, layer 3 takes rows of 32.
// Layer 4 has no row, and there are no others.
FakeReply Metadata(const FakeCall& call) {
  inference::ModelMetadataRequest request;
  request.ParseFromString(call.message);
  FakeReply reply;
  const char layer = request.name().size() > 6 ? request.name()[6] : '?';
  if (!absl::StartsWith(request.name(), "mlp_m_") || layer < '0' || layer > '4') {
    reply.status = grpc::Status(grpc::StatusCode::NOT_FOUND,
                                absl::StrCat("unknown model '", request.name(), "'"));
    return reply;
  }
  inference::ModelMetadataResponse response;
  response.set_name(request.name());
  auto* input = response.add_inputs();
  input->set_name("x");
  input->set_datatype("BF16");
  if (layer != '4') {
    input->add_shape(-1);
    input->add_shape(layer == '3' ? 32 : 64);
  }
  return client::Answer(response);
}

class AskForMlpTest : public ::testing::Test {
 protected:
  FakeServer server_{Metadata};
  std::unique_ptr<client::Client> client_ =
      std::make_unique<client::Client>(*client::Client::Create(server_.address()));
};

TEST_F(AskForMlpTest, TheServerTellsTheRows) {
  const Model forward = AskForMlp(*client_, {.name = "m", .first_layer = 1}).value();
  EXPECT_THAT(forward.names, ElementsAre("mlp_m_1_forward"));
  EXPECT_EQ(forward.dtype, Dtype::kBf16);
  EXPECT_EQ(forward.row_elements, 64);
  EXPECT_THAT(forward.inputs, ElementsAre("x"));
  EXPECT_THAT(forward.outputs, ElementsAre("y"));
  const Model backward =
      AskForMlp(*client_, {.name = "m", .num_layers = 3, .is_backward = true}).value();
  EXPECT_THAT(backward.names,
              ElementsAre("mlp_m_0_backward", "mlp_m_1_backward", "mlp_m_2_backward"));
  EXPECT_THAT(backward.inputs, ElementsAre("x", "dy"));
  EXPECT_THAT(backward.outputs, ElementsAre("dx"));
}

TEST_F(AskForMlpTest, SaysWhatIsWrong) {
  EXPECT_EQ(client::Unnamed(AskForMlp(*client_, {.name = "other"}).status()),
            absl::NotFoundError("unknown model 'mlp_other_0_forward'"));
  EXPECT_EQ(AskForMlp(*client_, {.name = "m", .first_layer = 2, .num_layers = 2}).status(),
            absl::InvalidArgumentError(
                "the layers of a load take equal tensors: 'mlp_m_3_forward' takes rows of 32 "
                "elements of BF16, 'mlp_m_2_forward' takes rows of 64 elements of BF16"));
  EXPECT_EQ(AskForMlp(*client_, {.name = "m", .first_layer = 4}).status(),
            absl::InternalError("bad metadata of 'mlp_m_4_forward': they do not tell the rows of "
                                "its input"));
}

TEST(MlpModelTest, ReadsTheLayer) {
  MlpChoice choice;
  EXPECT_TRUE(ReadMlpLayer("llama:31", &choice));
  EXPECT_EQ(choice.name, "llama");
  EXPECT_EQ(choice.first_layer, 31);
  for (const char* bad :
       {"", "llama", ":0", "llama:", "llama:x", "llama:-1", "llama: 1", "llama:1000000001"}) {
    EXPECT_FALSE(ReadMlpLayer(bad, &choice)) << bad;
  }
}

TEST(MlpModelTest, CountsTokens) {
  const Model mlp{.names = {"mlp_m_0_backward"},
                  .dtype = Dtype::kFp16,
                  .inputs = {"x", "dy"},
                  .outputs = {"dx"},
                  .mlp = "m",
                  .row_elements = 64};
  const auto sizes = TokensToBytes(mlp, {{8, 9}, {512, 1}});
  ASSERT_TRUE(sizes.ok()) << sizes.status();
  EXPECT_EQ((*sizes)[0].bytes, 2048);
  EXPECT_EQ((*sizes)[0].weight, 9);
  EXPECT_EQ((*sizes)[1].bytes, 131072);
  EXPECT_EQ(NumTokens(mlp, 131072), 512);
  EXPECT_EQ(TokensToBytes(mlp, {{int64_t{1} << 60, 1}}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(FirstAnswersTest, TheFirstToEachRequestIsTheRightOne) {
  const Model mlp{.names = {"mlp_m_0_forward", "mlp_m_1_forward"}};
  FirstAnswers answers(&mlp, 2);
  EXPECT_EQ(answers.Result().value(), 0);
  for (int round = 0; round < 2; ++round) {
    EXPECT_TRUE(answers.Compare(0, 0, "a").ok());
    EXPECT_TRUE(answers.Compare(1, 0, "bb").ok());
    EXPECT_TRUE(answers.Compare(0, 1, "c").ok());
    EXPECT_TRUE(answers.Compare(1, 1, "dd").ok());
  }
  EXPECT_EQ(answers.Result().value(), 4);
  const absl::Status difference = absl::DataLossError(
      "wrong result: an answer of 'mlp_m_1_forward' differs from the first one to an equal "
      "request");
  EXPECT_EQ(answers.Compare(1, 1, "de"), difference);
  EXPECT_EQ(answers.Compare(0, 0, ""),
            absl::DataLossError("wrong result: an answer of 'mlp_m_0_forward' has 0 bytes, the "
                                "first one to an equal request has 1"));
  EXPECT_TRUE(answers.Compare(1, 0, "bb").ok());
  EXPECT_EQ(answers.Result().status(), difference);
}

// The library's load by the futures of one thread.
absl::StatusOr<std::unique_ptr<Load>> CreateMlpFuturesLoad(const LoadOptions& options,
                                                           const std::vector<RequestData>* data) {
  LoadOptions with_callers = options;
  with_callers.num_callers = 1;
  return CreateLibraryLoad(with_callers, data);
}

// Loads on three layers of the MLP m, of 2 and of 5 tokens.
class MlpLoadTest : public ::testing::TestWithParam<Connector*> {
 protected:
  MlpLoadTest() {
    options_.server = server_.address();
    options_.model = &model_;
    options_.request_bytes = {{256, 1}, {640, 1}};
    options_.tokens = {{2, 1}, {5, 1}};
    options_.num_connections = 1;
    options_.num_in_flight = 1;
    options_.num_threads = 1;
    data_ = MakeRequestData(options_);
  }

  Tally RunLoad(int64_t num_requests) {
    const auto load = GetParam()(options_, &data_);
    EXPECT_TRUE(load.ok()) << load.status();
    Pace pace({.warm_up = std::chrono::seconds(0), .num_requests = num_requests}, Clock::now());
    (*load)->Start(&pace);
    return (*load)->Finish();
  }

  FakeReply Answer(const FakeCall& call) {
    FakeReply reply = regions_.Answer(call);
    if (call.method != "ModelInfer") return reply;
    requests_.push_back(regions_.last_infer());
    on_reply_(reply);
    return reply;
  }

  const Model model_{.names = {"mlp_m_4_forward", "mlp_m_5_forward", "mlp_m_6_forward"},
                     .dtype = Dtype::kBf16,
                     .inputs = {"x"},
                     .outputs = {"y"},
                     .mlp = "m",
                     .first_layer = 4,
                     .row_elements = 64};
  LoadOptions options_;
  FakeRegions regions_;
  std::vector<inference::ModelInferRequest> requests_;
  std::function<void(FakeReply&)> on_reply_ = [](FakeReply&) {};
  FakeServer server_{[this](const FakeCall& call) { return Answer(call); }};
  std::unique_ptr<client::Client> client_ =
      std::make_unique<client::Client>(*client::Client::Create(server_.address()));
  std::vector<RequestData> data_;
};

TEST_P(MlpLoadTest, GoesThroughTheLayersInTurn) {
  const Tally tally = RunLoad(7);
  EXPECT_EQ(tally.NumFailed(), 0) << tally.example();
  ASSERT_EQ(requests_.size(), 7u);
  std::vector<std::string> names;
  for (const auto& request : requests_) {
    names.push_back(request.model_name());
    const Shape shape(request.inputs(0).shape().begin(), request.inputs(0).shape().end());
    EXPECT_THAT(shape, ::testing::AnyOf(Shape{2, 64}, Shape{5, 64}));
  }
  EXPECT_THAT(
      names, ElementsAre("mlp_m_4_forward", "mlp_m_5_forward", "mlp_m_6_forward", "mlp_m_4_forward",
                         "mlp_m_5_forward", "mlp_m_6_forward", "mlp_m_4_forward"));
  EXPECT_EQ(tally.Total().bytes_in,
            256 * tally.sizes()[0].latency.count() + 640 * tally.sizes()[1].latency.count());
}

TEST_P(MlpLoadTest, EqualRequestsHaveEqualAnswers) {
  FirstAnswers answers(&model_, data_.size());
  options_.first_answers = &answers;
  EXPECT_EQ(RunLoad(50).NumFailed(), 0);
  // There are six kinds of requests.
  EXPECT_GE(answers.Result().value(), 44);
}

TEST_P(MlpLoadTest, AnAnswerThatDiffersIsFound) {
  FirstAnswers answers(&model_, data_.size());
  options_.first_answers = &answers;
  on_reply_ = [&](FakeReply& reply) {
    // In y, and not in what is around it. At least one of this kind has been answered before.
    if (requests_.size() == 40) reply.message[reply.message.size() - 9] ^= 1;
  };
  const Tally tally = RunLoad(50);
  EXPECT_EQ(tally.num_errors().at(absl::StatusCode::kDataLoss), 1);
  EXPECT_EQ(answers.Result().status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(answers.Result().status().message()),
              HasSubstr("wrong result: an answer of 'mlp_m_"));
}

TEST_P(MlpLoadTest, ResultsInSharedMemoryAreThoseOfTheLastLayer) {
  options_.shared_memory = SharedMemory::kSystem;
  options_.num_in_flight = 2;
  auto tensors = SharedTensors::Create(*client_, options_.shared_memory, 2, data_.back());
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  options_.shared_tensors = tensors->get();
  const Tally tally = RunLoad(20);
  EXPECT_EQ(tally.NumFailed(), 0) << tally.example();
  EXPECT_EQ(requests_.back().raw_input_contents_size(), 0);
  std::vector<std::string> called;
  for (const auto& request : requests_) called.push_back(request.model_name());
  requests_.clear();
  const auto num_checked = (*tensors)->Check(*client_);
  ASSERT_TRUE(num_checked.ok()) << num_checked.status();
  ASSERT_EQ(requests_.size(), static_cast<size_t>(*num_checked));
  EXPECT_EQ(requests_.back().raw_input_contents_size(), 1);
  EXPECT_EQ(requests_.back().inputs(0).shape(1), 64);
  EXPECT_THAT(called, ::testing::Contains(requests_.back().model_name()));
}

// One caller that has made five calls was last at the second layer.
TEST_P(MlpLoadTest, TheCheckCallsTheLayerOfTheLastRequest) {
  options_.shared_memory = SharedMemory::kSystem;
  auto tensors = SharedTensors::Create(*client_, options_.shared_memory, 1, data_.back());
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  options_.shared_tensors = tensors->get();
  RunLoad(5);
  requests_.clear();
  EXPECT_EQ((*tensors)->Check(*client_).value(), 1);
  EXPECT_EQ(requests_.back().model_name(), "mlp_m_5_forward");
  auto& bytes = *regions_.regions().begin()->second.data();
  bytes ^= std::byte{1};
  EXPECT_EQ((*tensors)->Check(*client_).status().code(), absl::StatusCode::kDataLoss);
}

INSTANTIATE_TEST_SUITE_P(Raw, MlpLoadTest, ::testing::Values(&ConnectRawLoad));
INSTANTIATE_TEST_SUITE_P(Library, MlpLoadTest, ::testing::Values(&CreateLibraryLoad));
INSTANTIATE_TEST_SUITE_P(Futures, MlpLoadTest, ::testing::Values(&CreateMlpFuturesLoad));

}  // namespace
}  // namespace swiglu::bench
