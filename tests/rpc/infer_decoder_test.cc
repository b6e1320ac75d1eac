// SPDX-License-Identifier: Apache-2.0
//
// The rules of the data, one by one: what is accepted, and with which code and sentence the rest is
// refused.
#include "server/codec/infer_decoder.h"

#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/batching/mlp_models.h"
#include "tests/rpc/decoding.h"
#include "tests/rpc/requests.h"

namespace swiglu::server {
namespace {

using inference::ModelInferRequest;
using Edit = std::function<void(ModelInferRequest*)>;

constexpr int64_t kMaxInt64 = std::numeric_limits<int64_t>::max();

// The status of a good forward FP16 request of shape [4,8] after `edit`.
absl::Status StatusAfter(const Edit& edit) {
  ModelInferRequest request = GoodRequest(kForwardFp16, {4, 8});
  edit(&request);
  return Decode(request).status;
}

void SetShape(int input, const std::vector<int64_t>& shape, ModelInferRequest* request) {
  request->mutable_inputs(input)->mutable_shape()->Clear();
  request->mutable_inputs(input)->mutable_shape()->Add(shape.begin(), shape.end());
}

// The status of a forward FP16 request whose two inputs have that shape and no data.
absl::Status StatusOfShape(const std::vector<int64_t>& shape) {
  return StatusAfter([&shape](ModelInferRequest* request) {
    SetShape(0, shape, request);
    SetShape(1, shape, request);
    request->clear_raw_input_contents();
  });
}

// --- Good requests

TEST(InferDecoderTest, TakesEveryModel) {
  for (const Model& model : Models()) {
    const Decoded decoded = Decode(GoodRequest(std::string(model.name), {3, 5}));
    ASSERT_TRUE(decoded.status.ok()) << decoded.status;
    EXPECT_EQ(decoded.plan.model, &model);
    EXPECT_EQ(decoded.plan.shape, (std::vector<int64_t>{3, 5}));
    EXPECT_EQ(decoded.plan.num_elements, 15);
    EXPECT_EQ(decoded.plan.tensor_bytes, 15 * ElementBytes(model.dtype));
    EXPECT_EQ(decoded.plan.timeout, std::nullopt);
    ASSERT_EQ(decoded.inputs.size(), model.inputs.size());
    for (size_t k = 0; k < decoded.inputs.size(); ++k) {
      EXPECT_EQ(decoded.inputs[k],
                std::string(15 * ElementBytes(model.dtype), static_cast<char>(k + 1)));
    }
  }
}

TEST(InferDecoderTest, GivesTheKthInputTheKthRawEntry) {
  ModelInferRequest request;
  request.set_model_name(kBackwardBf16);
  for (const char* name : {"g", "DW", "e"}) AddInput(name, "BF16", {2}, &request);
  for (const char* data : {"gggg", "dwdw", "eeee"}) request.add_raw_input_contents(data);
  const Decoded decoded = Decode(request);
  ASSERT_TRUE(decoded.status.ok()) << decoded.status;
  EXPECT_EQ(decoded.inputs, (std::vector<std::string>{"dwdw", "eeee", "gggg"}));
}

TEST(InferDecoderTest, TakesRankZeroAsOneElement) {
  const Decoded decoded = Decode(GoodRequest(kForwardFp16, {}));
  ASSERT_TRUE(decoded.status.ok()) << decoded.status;
  EXPECT_EQ(decoded.plan.num_elements, 1);
  EXPECT_TRUE(decoded.plan.shape.empty());
  EXPECT_EQ(decoded.inputs, (std::vector<std::string>{"\1\1", "\2\2"}));
}

TEST(InferDecoderTest, TakesZeroElementsWithAnyNumberOfEmptyRawEntries) {
  for (int num_raw = 0; num_raw <= 2; ++num_raw) {
    ModelInferRequest request = GoodRequest(kForwardFp16, {3, 0});
    request.clear_raw_input_contents();
    for (int i = 0; i < num_raw; ++i) request.add_raw_input_contents("");
    const Decoded decoded = Decode(request);
    EXPECT_TRUE(decoded.status.ok()) << decoded.status << " with " << num_raw;
    EXPECT_EQ(decoded.plan.num_elements, 0);
  }
}

TEST(InferDecoderTest, TakesZeroElementsWithEmptyTypedContents) {
  const Decoded decoded = Decode(TypedRequest({}, {}));
  EXPECT_TRUE(decoded.status.ok()) << decoded.status;
  EXPECT_EQ(decoded.plan.num_elements, 0);
}

TEST(InferDecoderTest, TakesZeroElementsBesideHugeDims) {
  EXPECT_TRUE(StatusOfShape({kMaxInt64, kMaxInt64, 0}).ok());
  EXPECT_TRUE(StatusOfShape({0, kMaxInt64, kMaxInt64}).ok());
}

TEST(InferDecoderTest, TakesTypedFp32) {
  const Decoded decoded = Decode(TypedRequest({1.0f, -2.5f}, {0.5f, 4.0f}));
  ASSERT_TRUE(decoded.status.ok()) << decoded.status;
  float g[2];
  std::memcpy(g, decoded.inputs[1].data(), sizeof(g));
  EXPECT_EQ(g[0], 0.5f);
  EXPECT_EQ(g[1], 4.0f);
}

TEST(InferDecoderTest, NamesOutputsInTheOrderAskedFor) {
  ModelInferRequest request = GoodRequest(kBackwardBf16, {2});
  EXPECT_EQ(Decode(request).plan.outputs, (std::vector<int>{0, 1, 2}));
  request.add_outputs()->set_name("de");
  request.add_outputs()->set_name("h");
  EXPECT_EQ(Decode(request).plan.outputs, (std::vector<int>{2, 0}));
}

TEST(InferDecoderTest, TakesAnyWayToWriteVersionOne) {
  for (const std::string version : {"", "1", "+1", "01"}) {
    EXPECT_TRUE(StatusAfter([&](auto* r) { r->set_model_version(version); }).ok()) << version;
  }
}

TEST(InferDecoderTest, ToleratesParametersThatItDoesNotKnow) {
  EXPECT_TRUE(StatusAfter([](ModelInferRequest* request) {
                auto& parameters = *request->mutable_parameters();
                parameters["priority"].set_uint64_param(3);
                parameters["triton_enable_empty_final_response"].set_bool_param(false);
                parameters["anything"].set_string_param("goes");
                (*request->mutable_inputs(0)->mutable_parameters())["odd"].set_double_param(1);
              }).ok());
  EXPECT_TRUE(StatusAfter([](ModelInferRequest* request) {
                (*request->mutable_parameters())["priority"].set_int64_param(0);
              }).ok());
}

TEST(InferDecoderTest, ReadsTheTimeout) {
  ModelInferRequest request = GoodRequest(kForwardFp16, {1});
  auto& timeout = (*request.mutable_parameters())["timeout"];
  timeout.set_int64_param(1500);
  EXPECT_EQ(Decode(request).plan.timeout, std::chrono::microseconds(1500));
  timeout.set_uint64_param(1500);
  EXPECT_EQ(Decode(request).plan.timeout, std::chrono::microseconds(1500));
  timeout.set_int64_param(0);
  EXPECT_EQ(Decode(request).plan.timeout, std::nullopt);
  timeout.set_int64_param(kMaxInt64);
  EXPECT_EQ(Decode(request).plan.timeout, std::chrono::microseconds(kMaxInt64));
  timeout.set_uint64_param(std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(Decode(request).plan.timeout, std::chrono::microseconds(kMaxInt64));
}

// --- Models and versions

TEST(InferDecoderTest, RefusesAnUnknownModel) {
  EXPECT_STATUS(StatusAfter([](auto* r) { r->set_model_name("nope"); }), kNotFound,
                std::string("unknown model 'nope'") + kKnownModels);
  EXPECT_STATUS(StatusAfter([](auto* r) { r->clear_model_name(); }), kNotFound,
                std::string("unknown model ''") + kKnownModels);
  EXPECT_STATUS(StatusAfter([](auto* r) { r->set_model_name("swiglu_forward_FP16"); }), kNotFound,
                std::string("unknown model 'swiglu_forward_FP16'") + kKnownModels);
}

TEST(InferDecoderTest, RefusesAnUnknownVersion) {
  for (const std::string version : {"7", "0", "-1", "99999999999999999999999"}) {
    EXPECT_STATUS(StatusAfter([&](auto* r) { r->set_model_version(version); }), kNotFound,
                  "model 'swiglu_forward_fp16' has version 1, not " + version);
  }
}

TEST(InferDecoderTest, RefusesAVersionThatIsNoInteger) {
  for (const std::string version : {"x", "1.0", "1x", " 1", "-", "+", "0x1"}) {
    EXPECT_STATUS(StatusAfter([&](auto* r) { r->set_model_version(version); }), kInvalidArgument,
                  "model version '" + version + "' is not an integer");
  }
}

// --- Inputs and outputs

TEST(InferDecoderTest, RefusesAMissingInput) {
  EXPECT_STATUS(StatusAfter([](auto* r) { r->clear_inputs(); }), kInvalidArgument,
                "input 'e' is missing");
  EXPECT_STATUS(StatusAfter([](auto* r) { r->mutable_inputs()->RemoveLast(); }), kInvalidArgument,
                "input 'g' is missing");
  ModelInferRequest backward = GoodRequest(kBackwardBf16, {1});
  backward.mutable_inputs()->DeleteSubrange(0, 1);
  EXPECT_STATUS(Decode(backward).status, kInvalidArgument, "input 'DW' is missing");
}

TEST(InferDecoderTest, RefusesAnUnknownInput) {
  EXPECT_STATUS(StatusAfter([](auto* r) { r->mutable_inputs(1)->set_name("up"); }),
                kInvalidArgument, "unknown input 'up': 'swiglu_forward_fp16' takes e, g");
  EXPECT_STATUS(StatusAfter([](auto* r) {
                  AddInput("DW", "FP16", {4, 8}, r);
                }),
                kInvalidArgument, "unknown input 'DW': 'swiglu_forward_fp16' takes e, g");
  ModelInferRequest backward = GoodRequest(kBackwardBf16, {1});
  backward.mutable_inputs(0)->set_name("dw");
  EXPECT_STATUS(Decode(backward).status, kInvalidArgument,
                "unknown input 'dw': 'swiglu_backward_bf16' takes DW, e, g");
}

TEST(InferDecoderTest, RefusesAnInputThatIsGivenTwice) {
  EXPECT_STATUS(StatusAfter([](auto* r) { r->mutable_inputs(1)->set_name("e"); }), kInvalidArgument,
                "input 'e' is given twice");
  EXPECT_STATUS(StatusAfter([](auto* r) {
                  AddInput("g", "FP16", {4, 8}, r);
                }),
                kInvalidArgument, "input 'g' is given twice");
}

TEST(InferDecoderTest, RefusesAnUnknownOutput) {
  EXPECT_STATUS(StatusAfter([](auto* r) { r->add_outputs()->set_name("y"); }), kInvalidArgument,
                "unknown output 'y': 'swiglu_forward_fp16' gives h");
  ModelInferRequest backward = GoodRequest(kBackwardBf16, {1});
  backward.add_outputs()->set_name("h");
  backward.add_outputs()->set_name("dg");
  EXPECT_STATUS(Decode(backward).status, kInvalidArgument,
                "unknown output 'dg': 'swiglu_backward_bf16' gives h, df, de");
}

TEST(InferDecoderTest, RefusesAnOutputThatIsNamedTwice) {
  EXPECT_STATUS(StatusAfter([](ModelInferRequest* request) {
                  request->add_outputs()->set_name("h");
                  request->add_outputs()->set_name("h");
                }),
                kInvalidArgument, "output 'h' is given twice");
}

TEST(InferDecoderTest, RefusesAWrongDatatype) {
  EXPECT_STATUS(StatusAfter([](auto* r) { r->mutable_inputs(0)->set_datatype("FP32"); }),
                kInvalidArgument, "input 'e' is FP32; 'swiglu_forward_fp16' takes FP16");
  EXPECT_STATUS(StatusAfter([](auto* r) { r->mutable_inputs(1)->set_datatype("fp16"); }),
                kInvalidArgument, "input 'g' is fp16; 'swiglu_forward_fp16' takes FP16");
  EXPECT_STATUS(StatusAfter([](auto* r) { r->mutable_inputs(1)->clear_datatype(); }),
                kInvalidArgument, "input 'g' is ; 'swiglu_forward_fp16' takes FP16");
}

// --- Shapes

TEST(InferDecoderTest, RefusesShapesThatDiffer) {
  ModelInferRequest request = GoodRequest(kForwardFp16, {3, 4});
  SetShape(1, {4, 3}, &request);
  EXPECT_STATUS(Decode(request).status, kInvalidArgument, "shape of 'g' is [4,3]; 'e' has [3,4]");
  SetShape(1, {12}, &request);
  EXPECT_STATUS(Decode(request).status, kInvalidArgument, "shape of 'g' is [12]; 'e' has [3,4]");
  SetShape(1, {}, &request);
  EXPECT_STATUS(Decode(request).status, kInvalidArgument, "shape of 'g' is []; 'e' has [3,4]");
  ModelInferRequest backward = GoodRequest(kBackwardBf16, {3, 4});
  SetShape(0, {3, 4, 1}, &backward);
  EXPECT_STATUS(Decode(backward).status, kInvalidArgument,
                "shape of 'DW' is [3,4,1]; 'e' has [3,4]");
}

TEST(InferDecoderTest, RefusesShapesOfNothingThatDiffer) {
  ModelInferRequest request = GoodRequest(kForwardFp16, {0, 4});
  SetShape(1, {4, 0}, &request);
  EXPECT_STATUS(Decode(request).status, kInvalidArgument, "shape of 'g' is [4,0]; 'e' has [0,4]");
}

TEST(InferDecoderTest, RefusesANegativeDimension) {
  EXPECT_STATUS(StatusOfShape({-3, 4}), kInvalidArgument,
                "shape of 'e' has a negative dimension: [-3,4]");
  EXPECT_STATUS(StatusOfShape({0, -1}), kInvalidArgument,
                "shape of 'e' has a negative dimension: [0,-1]");
  EXPECT_STATUS(StatusOfShape({-2, -2}), kInvalidArgument,
                "shape of 'e' has a negative dimension: [-2,-2]");
  EXPECT_STATUS(StatusOfShape({std::numeric_limits<int64_t>::min()}), kInvalidArgument,
                "shape of 'e' has a negative dimension: [-9223372036854775808]");
}

TEST(InferDecoderTest, RefusesAShapeOver2To63MinusOneBytes) {
  EXPECT_STATUS(StatusOfShape({int64_t{1} << 62}), kInvalidArgument,
                "shape of 'e' is too large: [4611686018427387904]");
  EXPECT_STATUS(StatusOfShape({int64_t{1} << 32, int64_t{1} << 32}), kInvalidArgument,
                "shape of 'e' is too large: [4294967296,4294967296]");
  EXPECT_STATUS(StatusOfShape({kMaxInt64}), kInvalidArgument,
                "shape of 'e' is too large: [9223372036854775807]");
  EXPECT_STATUS(StatusOfShape({kMaxInt64, kMaxInt64, 3}), kInvalidArgument,
                "shape of 'e' is too large: [9223372036854775807,9223372036854775807,3]");
  // The largest that is representable: refused for its data alone.
  EXPECT_STATUS(StatusOfShape({(int64_t{1} << 62) - 1}), kInvalidArgument,
                "input 'e' has no data; shape [4611686018427387903] of FP16 needs "
                "9223372036854775806 bytes");
}

// --- Data

TEST(InferDecoderTest, RefusesAWrongSize) {
  EXPECT_STATUS(StatusAfter([](auto* r) { r->set_raw_input_contents(0, std::string(96, 'x')); }),
                kInvalidArgument, "input 'e' has 96 bytes; shape [4,8] of FP16 needs 64");
  EXPECT_STATUS(StatusAfter([](auto* r) { r->set_raw_input_contents(1, std::string(63, 'x')); }),
                kInvalidArgument, "input 'g' has 63 bytes; shape [4,8] of FP16 needs 64");
  EXPECT_STATUS(StatusAfter([](auto* r) { r->set_raw_input_contents(1, ""); }), kInvalidArgument,
                "input 'g' has 0 bytes; shape [4,8] of FP16 needs 64");
}

TEST(InferDecoderTest, RefusesDataForZeroElements) {
  ModelInferRequest request = GoodRequest(kForwardFp16, {0});
  request.set_raw_input_contents(0, "ab");
  EXPECT_STATUS(Decode(request).status, kInvalidArgument,
                "input 'e' has 2 bytes; shape [0] of FP16 needs 0");
}

TEST(InferDecoderTest, RefusesATensorWithoutData) {
  EXPECT_STATUS(StatusAfter([](auto* r) { r->clear_raw_input_contents(); }), kInvalidArgument,
                "input 'e' has no data; shape [4,8] of FP16 needs 64 bytes");
  EXPECT_STATUS(StatusAfter([](auto* r) { r->mutable_raw_input_contents()->RemoveLast(); }),
                kInvalidArgument, "input 'g' has no data; shape [4,8] of FP16 needs 64 bytes");
  ModelInferRequest typed = TypedRequest({1, 2}, {3, 4});
  typed.mutable_inputs(1)->clear_contents();
  EXPECT_STATUS(Decode(typed).status, kInvalidArgument,
                "input 'g' has no data; shape [2] of FP32 needs 8 bytes");
}

TEST(InferDecoderTest, RefusesExtraRawEntries) {
  EXPECT_STATUS(StatusAfter([](auto* r) { r->add_raw_input_contents("more"); }), kInvalidArgument,
                "raw_input_contents has 3 entries; the 2 inputs e, g take one each");
  // Even empty ones, even for no elements.
  ModelInferRequest request = GoodRequest(kForwardFp16, {0});
  for (int i = 0; i < 98; ++i) request.add_raw_input_contents("");
  EXPECT_STATUS(Decode(request).status, kInvalidArgument,
                "raw_input_contents has 100 entries; the 2 inputs e, g take one each");
}

TEST(InferDecoderTest, RefusesBothKindsOfData) {
  ModelInferRequest request = TypedRequest({1, 2}, {3, 4});
  request.add_raw_input_contents(std::string(8, '\0'));
  EXPECT_STATUS(Decode(request).status, kInvalidArgument,
                "input 'e' has typed contents, and the request has raw_input_contents: give one "
                "kind of data");
}

TEST(InferDecoderTest, RefusesTypedContentsOf16BitTensors) {
  EXPECT_STATUS(StatusAfter([](ModelInferRequest* request) {
                  request->clear_raw_input_contents();
                  request->mutable_inputs(0)->mutable_contents()->add_fp32_contents(1);
                }),
                kInvalidArgument, "input 'e' has typed contents; FP16 takes raw_input_contents");
}

TEST(InferDecoderTest, RefusesOtherTypedFields) {
  const std::pair<const char*, std::function<void(inference::InferTensorContents*)>> fields[] = {
      {"bool_contents", [](auto* c) { c->add_bool_contents(true); }},
      {"int_contents", [](auto* c) { c->add_int_contents(1); }},
      {"int64_contents", [](auto* c) { c->add_int64_contents(1); }},
      {"uint_contents", [](auto* c) { c->add_uint_contents(1); }},
      {"uint64_contents", [](auto* c) { c->add_uint64_contents(1); }},
      {"fp64_contents", [](auto* c) { c->add_fp64_contents(1); }},
      {"bytes_contents", [](auto* c) { c->add_bytes_contents("x"); }},
  };
  for (const auto& [name, add] : fields) {
    ModelInferRequest request = TypedRequest({1}, {2});
    request.mutable_inputs(0)->clear_contents();
    add(request.mutable_inputs(0)->mutable_contents());
    EXPECT_STATUS(Decode(request).status, kInvalidArgument,
                  std::string("input 'e' has ") + name + "; FP32 takes fp32_contents");
  }
}

TEST(InferDecoderTest, RefusesTypedContentsBesideOtherTypedContents) {
  ModelInferRequest request = TypedRequest({1}, {2});
  request.mutable_inputs(0)->mutable_contents()->add_fp64_contents(1);
  EXPECT_STATUS(Decode(request).status, kInvalidArgument,
                "input 'e' has fp64_contents; FP32 takes fp32_contents");
}

TEST(InferDecoderTest, RefusesAWrongNumberOfTypedElements) {
  ModelInferRequest request = TypedRequest({1, 2}, {3, 4});
  request.mutable_inputs(1)->mutable_contents()->add_fp32_contents(5);
  EXPECT_STATUS(Decode(request).status, kInvalidArgument,
                "input 'g' has 12 bytes; shape [2] of FP32 needs 8");
}

// --- Parameters

TEST(InferDecoderTest, RefusesSequenceAndClassificationParameters) {
  for (const std::string name :
       {"sequence_id", "sequence_start", "sequence_end", "classification"}) {
    EXPECT_STATUS(
        StatusAfter([&](auto* r) { (*r->mutable_parameters())[name].set_int64_param(1); }),
        kInvalidArgument, "parameter '" + name + "' is not supported");
  }
  EXPECT_STATUS(StatusAfter([](ModelInferRequest* request) {
                  auto* output = request->add_outputs();
                  output->set_name("h");
                  (*output->mutable_parameters())["classification"].set_int64_param(5);
                }),
                kInvalidArgument, "parameter 'classification' is not supported");
}

TEST(InferDecoderTest, RefusesATimeoutThatIsNone) {
  const auto timeout = [](const std::function<void(inference::InferParameter*)>& set) {
    return StatusAfter([&](auto* r) { set(&(*r->mutable_parameters())["timeout"]); });
  };
  EXPECT_STATUS(timeout([](auto* p) { p->set_int64_param(-5); }), kInvalidArgument,
                "parameter 'timeout' takes an int64 of microseconds, 0 or more; this one is -5");
  EXPECT_STATUS(timeout([](auto* p) { p->set_string_param("5"); }), kInvalidArgument,
                "parameter 'timeout' takes an int64 of microseconds, 0 or more; this one is of "
                "another type");
}

TEST(InferDecoderTest, RefusesSharedMemory) {
  const std::string sentence =
      " lies in shared memory region 'r0', but this server takes no shared memory";
  EXPECT_STATUS(StatusAfter([](ModelInferRequest* request) {
                  auto& parameters = *request->mutable_inputs(1)->mutable_parameters();
                  parameters["shared_memory_region"].set_string_param("r0");
                  parameters["shared_memory_byte_size"].set_int64_param(64);
                  request->mutable_raw_input_contents()->RemoveLast();
                }),
                kUnimplemented, "'g'" + sentence);
  EXPECT_STATUS(StatusAfter([](ModelInferRequest* request) {
                  auto* output = request->add_outputs();
                  output->set_name("h");
                  (*output->mutable_parameters())["shared_memory_region"].set_string_param("r0");
                }),
                kUnimplemented, "'h'" + sentence);
}

// Makes `tensor` lie in 64 bytes of the region `r0`.
template <typename Tensor>
void PutInRegion(Tensor* tensor) {
  auto& parameters = *tensor->mutable_parameters();
  parameters["shared_memory_region"].set_string_param("r0");
  parameters["shared_memory_byte_size"].set_int64_param(64);
}

// The decoder's answer to an edited request, where regions are on.
absl::Status RegionStatusAfter(const std::function<void(ModelInferRequest*)>& edit) {
  ModelInferRequest request = GoodRequest(kForwardFp16, {4, 8});
  edit(&request);
  return Decode(request, true).status;
}

TEST(InferDecoderTest, GivesRawEntriesToTheInputsThatLieInNoRegion) {
  ModelInferRequest request = GoodRequest(kForwardFp16, {4, 8});
  PutInRegion(request.mutable_inputs(0));
  (*request.mutable_inputs(0)->mutable_parameters())["shared_memory_offset"].set_int64_param(128);
  request.mutable_raw_input_contents()->erase(request.raw_input_contents().begin());
  PutInRegion(request.add_outputs());
  request.mutable_outputs(0)->set_name("h");
  const Decoded decoded = Decode(request, true);
  ASSERT_TRUE(decoded.status.ok()) << decoded.status;
  ASSERT_NE(decoded.plan.regions, nullptr);
  const auto& e = decoded.plan.regions->inputs[0];
  ASSERT_TRUE(e.has_value());
  EXPECT_EQ(e->region, "r0");
  EXPECT_EQ(e->offset, 128);
  EXPECT_EQ(e->size_bytes, 64);
  EXPECT_FALSE(decoded.plan.regions->inputs[1].has_value());
  EXPECT_FALSE(decoded.plan.IsInline(0));
  EXPECT_EQ(decoded.inputs[1], std::string(64, 2));  // as in GoodRequest
}

TEST(InferDecoderTest, RefusesDataForAnInputInARegion) {
  EXPECT_STATUS(RegionStatusAfter([](ModelInferRequest* r) { PutInRegion(r->mutable_inputs(1)); }),
                kInvalidArgument, "raw_input_contents has 2 entries; the 1 inputs e take one each");
  EXPECT_STATUS(RegionStatusAfter([](ModelInferRequest* r) {
                  PutInRegion(r->mutable_inputs(0));
                  PutInRegion(r->mutable_inputs(1));
                  r->mutable_raw_input_contents()->RemoveLast();
                }),
                kInvalidArgument,
                "raw_input_contents has 1 entries; every input lies in a shared memory region");
  EXPECT_STATUS(RegionStatusAfter([](ModelInferRequest* r) {
                  PutInRegion(r->mutable_inputs(1));
                  r->mutable_inputs(1)->mutable_contents()->add_fp32_contents(1);
                  r->mutable_raw_input_contents()->RemoveLast();
                }),
                kInvalidArgument,
                "input 'g' lies in a shared memory region, and has typed contents: give one kind "
                "of data");
}

TEST(InferDecoderTest, RefusesParametersOfARegionThatAreNone) {
  const auto parameter = [](const std::string& name, const auto& set) {
    return RegionStatusAfter([&](ModelInferRequest* r) {
      PutInRegion(r->mutable_inputs(1));
      r->mutable_raw_input_contents()->RemoveLast();
      set(&(*r->mutable_inputs(1)->mutable_parameters())[name]);
    });
  };
  EXPECT_STATUS(parameter("shared_memory_region", [](auto* p) { p->set_int64_param(1); }),
                kInvalidArgument, "parameter 'shared_memory_region' of 'g' is of another type");
  EXPECT_STATUS(parameter("shared_memory_offset", [](auto* p) { p->set_int64_param(-2); }),
                kInvalidArgument, "parameter 'shared_memory_offset' of 'g' is -2");
  EXPECT_STATUS(parameter("shared_memory_byte_size", [](auto* p) { p->set_bool_param(true); }),
                kInvalidArgument, "parameter 'shared_memory_byte_size' of 'g' is of another type");
}

// --- Models with rows

class RowModelTest : public testing::Test {
 protected:
  Decoded DecodeOf(const std::string& name, const std::vector<int64_t>& shape) const {
    return Decode(GoodRequest(*models_.Find(name), shape), false, models_);
  }
  // The code of every refusal here.
  std::string Refusal(const ModelInferRequest& request) const {
    const absl::Status status = Decode(request, false, models_).status;
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(status.message());
  }
  std::string RefusalOf(const std::vector<int64_t>& shape) const {
    return Refusal(GoodRequest(*models_.Find("mlp_tiny_0_forward"), shape));
  }

  const ModelRegistry models_{MlpModels("tiny", 1, 576)};
};

TEST_F(RowModelTest, TakesAnyNumberOfRowsInAnyRank) {
  for (const std::string name : {"mlp_tiny_0_forward", "mlp_tiny_0_backward"}) {
    for (const std::vector<int64_t>& shape :
         std::vector<std::vector<int64_t>>{{576}, {1, 576}, {2, 3, 576}, {1, 1, 7, 1, 576}}) {
      const Decoded decoded = DecodeOf(name, shape);
      ASSERT_TRUE(decoded.status.ok()) << decoded.status;
      EXPECT_EQ(decoded.plan.model, models_.Find(name));
      EXPECT_EQ(decoded.plan.shape, shape);
      EXPECT_EQ(decoded.plan.num_elements, NumElements(shape));
      EXPECT_EQ(decoded.plan.tensor_bytes, 2 * NumElements(shape));
    }
  }
}

TEST_F(RowModelTest, TakesNoRows) {
  for (const std::vector<int64_t>& shape :
       std::vector<std::vector<int64_t>>{{0, 576}, {0, 7, 576}, {7, 0, 576}}) {
    const Decoded decoded = DecodeOf("mlp_tiny_0_backward", shape);
    EXPECT_TRUE(decoded.status.ok()) << decoded.status;
    EXPECT_EQ(decoded.plan.num_elements, 0);
  }
}

TEST_F(RowModelTest, RefusesRowsOfAnotherSize) {
  EXPECT_EQ(RefusalOf({4, 512}), "last dimension of 'x' is 512; 'mlp_tiny_0_forward' takes 576");
  EXPECT_EQ(RefusalOf({576, 1}), "last dimension of 'x' is 1; 'mlp_tiny_0_forward' takes 576");
  EXPECT_EQ(RefusalOf({1152}), "last dimension of 'x' is 1152; 'mlp_tiny_0_forward' takes 576");
  EXPECT_EQ(RefusalOf({576, 0}), "last dimension of 'x' is 0; 'mlp_tiny_0_forward' takes 576");
  EXPECT_EQ(RefusalOf({0}), "last dimension of 'x' is 0; 'mlp_tiny_0_forward' takes 576");
}

TEST_F(RowModelTest, RefusesRankZero) {
  EXPECT_EQ(RefusalOf({}), "last dimension of 'x' is missing; 'mlp_tiny_0_forward' takes 576");
}

TEST_F(RowModelTest, ComparesShapesWithThatOfTheFirstInput) {
  ModelInferRequest request = GoodRequest(*models_.Find("mlp_tiny_0_backward"), {4, 576});
  SetShape(1, {4, 512}, &request);
  EXPECT_EQ(Refusal(request), "shape of 'dy' is [4,512]; 'x' has [4,576]");
  SetShape(1, {2, 2, 576}, &request);
  EXPECT_EQ(Refusal(request), "shape of 'dy' is [2,2,576]; 'x' has [4,576]");
  SetShape(0, {4, 512}, &request);
  EXPECT_EQ(Refusal(request), "last dimension of 'x' is 512; 'mlp_tiny_0_backward' takes 576");
}

class GradientOutputTest : public RowModelTest {
 protected:
  ModelInferRequest Request(const std::vector<std::string>& outputs) const {
    ModelInferRequest request = GoodRequest(*models_.Find("mlp_tiny_0_backward"), {4, 576});
    for (const std::string& output : outputs) request.add_outputs()->set_name(output);
    return request;
  }
  InferPlan PlanOf(const std::vector<std::string>& outputs) const {
    Decoded decoded = Decode(Request(outputs), false, models_);
    EXPECT_TRUE(decoded.status.ok()) << decoded.status;
    return decoded.plan;
  }
};

TEST_F(GradientOutputTest, ComeOnlyIfTheyAreNamed) {
  const InferPlan plan = PlanOf({});
  EXPECT_EQ(plan.outputs, std::vector<int>{0});
  EXPECT_FALSE(plan.has_gradients());
  EXPECT_EQ(plan.ComputedOutputs(), OutputSet(0b0001));
}

TEST_F(GradientOutputTest, ComeInTheOrderAskedFor) {
  const InferPlan plan = PlanOf({"d_down_proj", "dx", "d_gate_proj"});
  EXPECT_EQ(plan.outputs, (std::vector<int>{3, 0, 1}));
  EXPECT_TRUE(plan.has_gradients());
  EXPECT_TRUE(plan.has_inline_gradients());
  EXPECT_EQ(plan.ComputedOutputs(), OutputSet(0b1011));
  EXPECT_EQ(plan.OutputBytes(0), 4 * 576 * 2);
  EXPECT_EQ(plan.OutputBytes(3), 576 * 1536 * 4);
}

TEST_F(GradientOutputTest, ComeWithoutDxIfThatIsNotNamed) {
  EXPECT_EQ(PlanOf({"d_up_proj"}).ComputedOutputs(), OutputSet(0b0100));
}

TEST_F(GradientOutputTest, AreRefusedTwiceAndWhereThereAreNone) {
  EXPECT_EQ(Refusal(Request({"d_up_proj", "d_up_proj"})), "output 'd_up_proj' is given twice");
  EXPECT_EQ(Refusal(Request({"d_down"})),
            "unknown output 'd_down': 'mlp_tiny_0_backward' gives dx, d_gate_proj, d_up_proj, "
            "d_down_proj");
  ModelInferRequest forward = GoodRequest(*models_.Find("mlp_tiny_0_forward"), {4, 576});
  forward.add_outputs()->set_name("d_up_proj");
  EXPECT_EQ(Refusal(forward), "unknown output 'd_up_proj': 'mlp_tiny_0_forward' gives y");
  ModelInferRequest elementwise = GoodRequest(kBackwardBf16, {4});
  elementwise.add_outputs()->set_name("d_up_proj");
  EXPECT_EQ(Refusal(elementwise),
            "unknown output 'd_up_proj': 'swiglu_backward_bf16' gives h, df, de");
}

TEST_F(RowModelTest, LeavesTheShapesOfTheSixFree) {
  EXPECT_TRUE(Decode(GoodRequest(kForwardFp16, {}), false, models_).status.ok());
  EXPECT_TRUE(Decode(GoodRequest(kBackwardBf16, {4, 512}), false, models_).status.ok());
}

}  // namespace
}  // namespace swiglu::server
