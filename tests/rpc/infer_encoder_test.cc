// SPDX-License-Identifier: Apache-2.0
//
// Encoded answers, read back with the generated parser; and who keeps the tensors alive until when.
#include "server/codec/infer_encoder.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "grpc/grpc.h"
#include "gtest/gtest.h"
#include "tests/rpc/requests.h"

namespace swiglu::server {
namespace {

using inference::ModelInferResponse;
using inference::ModelStreamInferResponse;

// A finished request: a plan, and results in memory that reports its end.
struct Finished {
  explicit Finished(const std::string& model_name, std::vector<int64_t> shape) {
    plan.model = FindModel(model_name);
    plan.shape = std::move(shape);
    plan.num_elements = NumElements(plan.shape);
    plan.tensor_bytes = plan.num_elements * ElementBytes(plan.model->dtype);
    const size_t size = static_cast<size_t>(plan.tensor_bytes);
    owner = std::make_shared<std::string>();
    for (int k = 0; k < kMaxTensors; ++k) owner->append(size, static_cast<char>('a' + k));
    pieces.resize(1);
    pieces[0].size_bytes = size;
    for (int k = 0; k < kMaxTensors; ++k) {
      pieces[0].outputs[k] = reinterpret_cast<std::byte*>(owner->data()) + size * k;
    }
  }

  // The same results in two pieces, the second of `size_bytes`.
  void Split(size_t size_bytes) {
    pieces.push_back(pieces[0]);
    pieces[0].size_bytes -= size_bytes;
    pieces[1].size_bytes = size_bytes;
    for (int k = 0; k < kMaxTensors; ++k) pieces[1].outputs[k] += pieces[0].size_bytes;
  }

  EncodedMessage Encode(const std::string& id) const {
    return EncodeInferResponse(plan, id, pieces, owner);
  }

  InferPlan plan;
  std::shared_ptr<std::string> owner;
  std::vector<OutputPiece> pieces;
};

std::string Bytes(const EncodedMessage& message) {
  const std::string bytes = Concatenate(message.slices);
  EXPECT_EQ(bytes.size(), message.size_bytes);
  return bytes;
}

ModelInferResponse Parse(const EncodedMessage& message) {
  ModelInferResponse response;
  EXPECT_TRUE(response.ParseFromString(Bytes(message)));
  return response;
}

class InferEncoderTest : public testing::Test {
 protected:
  // Slices run their ends on the library's executor.
  InferEncoderTest() { grpc_init(); }
  ~InferEncoderTest() override { grpc_shutdown(); }
};

TEST_F(InferEncoderTest, ListsEveryOutputWithItsBytes) {
  Finished finished(kBackwardBf16, {2, 3});
  finished.plan.outputs = {0, 1, 2};
  const ModelInferResponse response = Parse(finished.Encode("my id"));
  EXPECT_EQ(response.model_name(), "swiglu_backward_bf16");
  EXPECT_EQ(response.model_version(), "1");
  EXPECT_EQ(response.id(), "my id");
  EXPECT_EQ(response.parameters_size(), 0);
  ASSERT_EQ(response.outputs_size(), 3);
  ASSERT_EQ(response.raw_output_contents_size(), 3);
  const char* names[] = {"h", "df", "de"};
  for (int k = 0; k < 3; ++k) {
    EXPECT_EQ(response.outputs(k).name(), names[k]);
    EXPECT_EQ(response.outputs(k).datatype(), "BF16");
    ASSERT_EQ(response.outputs(k).shape_size(), 2);
    EXPECT_EQ(response.outputs(k).shape(0), 2);
    EXPECT_EQ(response.outputs(k).shape(1), 3);
    EXPECT_FALSE(response.outputs(k).has_contents());
    EXPECT_EQ(response.raw_output_contents(k), std::string(12, static_cast<char>('a' + k)));
  }
}

TEST_F(InferEncoderTest, KeepsTheOrderAskedFor) {
  Finished finished(kBackwardBf16, {1});
  finished.plan.outputs = {2, 0};
  const ModelInferResponse response = Parse(finished.Encode(""));
  ASSERT_EQ(response.outputs_size(), 2);
  EXPECT_EQ(response.outputs(0).name(), "de");
  EXPECT_EQ(response.outputs(1).name(), "h");
  ASSERT_EQ(response.raw_output_contents_size(), 2);
  EXPECT_EQ(response.raw_output_contents(0), "cc");
  EXPECT_EQ(response.raw_output_contents(1), "aa");
}

TEST_F(InferEncoderTest, JoinsThePiecesOfAnOutput) {
  Finished whole("swiglu_backward_bf16", {2, 3});
  whole.plan.outputs = {2, 0};
  Finished split = whole;
  split.Split(4);
  EXPECT_EQ(Bytes(split.Encode("an id")), Bytes(whole.Encode("an id")));
}

// In BF16, H = 3 and I = 2: gradients of 24 bytes. dx of 2 tokens, in two pieces.
class GradientEncoderTest : public InferEncoderTest {
 protected:
  GradientEncoderTest() {
    plan_.model = &model_;
    plan_.shape = {2, 3};
    plan_.num_elements = 6;
    plan_.tensor_bytes = 12;
    pieces_[0] = {{At(0), At(100), At(200), At(300)}, 6};
    pieces_[1] = {{At(0)}, 6};
    for (size_t i = 0; i < owner_->size(); ++i) (*owner_)[i] = static_cast<char>('a' + i / 100);
  }
  const std::byte* At(size_t offset) const {
    return reinterpret_cast<const std::byte*>(owner_->data()) + offset;
  }
  EncodedMessage Encode() const { return EncodeInferResponse(plan_, "x", pieces_, owner_); }

  const Model model_ =
      MakeMlpModel({.op = Op::kMlpBackward, .mlp = "m", .hidden = 3, .intermediate = 2});
  InferPlan plan_;
  std::shared_ptr<std::string> owner_ = std::make_shared<std::string>(400, ' ');
  std::vector<OutputPiece> pieces_{2};
};

TEST_F(GradientEncoderTest, GivesGradientsTheirOwnDatatypeAndShape) {
  plan_.outputs = {3, 0, 1};
  const ModelInferResponse response = Parse(Encode());
  ASSERT_EQ(response.outputs_size(), 3);
  EXPECT_EQ(response.outputs(0).ShortDebugString(),
            "name: \"d_down_proj\" datatype: \"FP32\" shape: 3 shape: 2");
  EXPECT_EQ(response.outputs(1).ShortDebugString(),
            "name: \"dx\" datatype: \"BF16\" shape: 2 shape: 3");
  EXPECT_EQ(response.outputs(2).ShortDebugString(),
            "name: \"d_gate_proj\" datatype: \"FP32\" shape: 2 shape: 3");
  ASSERT_EQ(response.raw_output_contents_size(), 3);
  EXPECT_EQ(response.raw_output_contents(0), std::string(24, 'd'));
  EXPECT_EQ(response.raw_output_contents(1), std::string(12, 'a'));
  EXPECT_EQ(response.raw_output_contents(2), std::string(24, 'b'));
}

TEST_F(GradientEncoderTest, CountsTheSizeOfGradients) {
  plan_.outputs = {0, 2};
  EXPECT_EQ(ResponseTensorBytes(plan_), 12 + 24);
  EXPECT_EQ(ResponseBytes(plan_, "x"), static_cast<int64_t>(Encode().size_bytes));
}

TEST_F(GradientEncoderTest, LeavesOutGradientsInRegions) {
  plan_.outputs = {0, 2};
  auto regions = std::make_shared<RegionParts>();
  regions->outputs[2] = RegionPart{"r", 0, 24};
  plan_.regions = regions;
  EXPECT_FALSE(plan_.has_inline_gradients());
  EXPECT_EQ(ResponseTensorBytes(plan_), 12);
  const ModelInferResponse response = Parse(Encode());
  ASSERT_EQ(response.raw_output_contents_size(), 2);
  EXPECT_EQ(response.raw_output_contents(1), "");
}

TEST_F(InferEncoderTest, GivesAnEmptyEntryForAnEmptyTensor) {
  Finished finished(kBackwardBf16, {4, 0});
  finished.plan.outputs = {0, 1, 2};
  const ModelInferResponse response = Parse(finished.Encode("x"));
  EXPECT_EQ(response.outputs_size(), 3);
  ASSERT_EQ(response.raw_output_contents_size(), 3);
  for (const std::string& raw : response.raw_output_contents()) EXPECT_TRUE(raw.empty());
  EXPECT_EQ(response.outputs(2).shape(0), 4);
  EXPECT_EQ(response.outputs(2).shape(1), 0);
}

TEST_F(InferEncoderTest, GivesRankZeroNoDims) {
  Finished finished(kForwardFp32, {});
  finished.plan.outputs = {0};
  const ModelInferResponse response = Parse(finished.Encode("x"));
  EXPECT_EQ(response.outputs(0).shape_size(), 0);
  EXPECT_EQ(response.raw_output_contents(0), "aaaa");
}

TEST_F(InferEncoderTest, WritesLengthsOfEverySize) {
  for (const int64_t size : {1, 63, 64, 127, 8191, 8192, 16384, 1 << 20, 1 << 21}) {
    Finished finished(kForwardFp16, {size});
    finished.plan.outputs = {0};
    const ModelInferResponse response = Parse(finished.Encode("x"));
    EXPECT_EQ(response.raw_output_contents(0).size(), static_cast<size_t>(2 * size));
    EXPECT_EQ(ResponseTensorBytes(finished.plan), 2 * size);
  }
}

TEST_F(InferEncoderTest, SendsTensorsFromWhereTheyLie) {
  Finished finished(kForwardFp16, {4});
  finished.plan.outputs = {0};
  const EncodedMessage message = finished.Encode("x");
  bool found = false;
  for (const grpc::Slice& slice : message.slices) {
    found |= slice.begin() == reinterpret_cast<const uint8_t*>(finished.pieces[0].outputs[0]);
  }
  EXPECT_TRUE(found);
}

TEST_F(InferEncoderTest, LetsTheOwnerGoAfterTheLastSlice) {
  Finished finished(kBackwardBf16, {5});
  finished.plan.outputs = {0, 1, 2};
  std::weak_ptr<std::string> alive = finished.owner;
  {
    EncodedMessage message = finished.Encode("x");
    finished.owner.reset();
    EXPECT_FALSE(alive.expired());
    grpc::ByteBuffer buffer = message.ToByteBuffer();
    while (!message.slices.empty()) {
      message.slices.pop_back();
      EXPECT_FALSE(alive.expired());
    }
    buffer.Clear();
    EXPECT_TRUE(alive.expired());
  }
}

TEST_F(InferEncoderTest, HoldsNothingForAnEmptyTensor) {
  Finished finished(kForwardFp16, {0});
  finished.plan.outputs = {0};
  std::weak_ptr<std::string> alive = finished.owner;
  const EncodedMessage message = finished.Encode("x");
  finished.owner.reset();
  EXPECT_TRUE(alive.expired());
}

TEST_F(InferEncoderTest, WrapsAnAnswerForAStream) {
  Finished finished(kBackwardBf16, {1000});
  finished.plan.outputs = {1, 2};
  const ModelInferResponse plain = Parse(finished.Encode("an id"));
  ModelStreamInferResponse wrapped;
  ASSERT_TRUE(
      wrapped.ParseFromString(Bytes(WrapForStream(finished.Encode("an id"), {"", "an id"}))));
  EXPECT_EQ(wrapped.error_message(), "");
  EXPECT_EQ(wrapped.infer_response().SerializeAsString(), plain.SerializeAsString());
}

TEST_F(InferEncoderTest, MarksTheLastAnswerOfAStreamWhereThatIsWanted) {
  Finished finished(kBackwardBf16, {1000});
  finished.plan.outputs = {1, 2};
  const InferIdentity identity = {"", "an id", true};
  ModelInferResponse expected = Parse(finished.Encode("an id"));
  (*expected.mutable_parameters())["triton_final_response"].set_bool_param(true);
  ModelStreamInferResponse wrapped;
  const std::string bytes = Bytes(WrapForStream(finished.Encode("an id"), identity));
  ASSERT_TRUE(wrapped.ParseFromString(bytes));
  EXPECT_EQ(wrapped.infer_response().SerializeAsString(), expected.SerializeAsString());
  // The tensors stay last.
  const std::string& last = wrapped.infer_response().raw_output_contents(1);
  EXPECT_EQ(bytes.substr(bytes.size() - last.size()), last);

  ASSERT_TRUE(wrapped.ParseFromString(Bytes(EncodeStreamError(identity, "it broke"))));
  EXPECT_EQ(wrapped.error_message(), "it broke");
  EXPECT_TRUE(wrapped.infer_response().parameters().at("triton_final_response").bool_param());
}

TEST_F(InferEncoderTest, ReportsAnErrorOnAStream) {
  ModelStreamInferResponse response;
  const std::string bytes = Bytes(EncodeStreamError({"a model", "an id"}, "it broke"));
  ASSERT_TRUE(response.ParseFromString(bytes));
  ModelStreamInferResponse expected;
  expected.set_error_message("it broke");
  expected.mutable_infer_response()->set_model_name("a model");
  expected.mutable_infer_response()->set_id("an id");
  EXPECT_EQ(bytes, expected.SerializeAsString());
}

// Cut between characters: a response's text is UTF-8.
TEST_F(InferEncoderTest, RepeatsTheBeginningOfALongIdInAnError) {
  ModelStreamInferResponse response;
  const std::string id = std::string(127, 'x') + "\xc3\xa9" + std::string(60'000, 'y');
  ASSERT_TRUE(response.ParseFromString(Bytes(EncodeStreamError({id, id}, "it broke"))));
  EXPECT_EQ(response.infer_response().id(), std::string(127, 'x'));
  EXPECT_EQ(response.infer_response().model_name(), std::string(127, 'x'));
  const std::string short_id = std::string(126, 'x') + "\xc3\xa9";
  ASSERT_TRUE(response.ParseFromString(Bytes(EncodeStreamError({"", short_id}, "it broke"))));
  EXPECT_EQ(response.infer_response().id(), short_id);
}

}  // namespace
}  // namespace swiglu::server
