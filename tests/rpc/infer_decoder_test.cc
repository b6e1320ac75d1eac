// SPDX-License-Identifier: Apache-2.0
//
// The rules of the data, one by one, and messages that are no good protobuf: what is accepted, and
// with which code and sentence the rest is refused.
#include "server/rpc/infer_decoder.h"

#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "google/protobuf/stubs/logging.h"
#include "gtest/gtest.h"
#include "tests/rpc/requests.h"

namespace swiglu::server {
namespace {

using inference::ModelInferRequest;
using Edit = std::function<void(ModelInferRequest*)>;

constexpr int64_t kMaxInt64 = std::numeric_limits<int64_t>::max();

// What became of a message, with the inputs' bytes, so that it outlives the message.
struct Decoded {
  absl::Status status;
  InferPlan plan;  // its sources are gone
  std::vector<std::string> inputs;

  bool operator==(const Decoded& other) const {
    return status == other.status && plan.model == other.plan.model &&
           plan.shape == other.plan.shape && plan.num_elements == other.plan.num_elements &&
           plan.outputs == other.plan.outputs && plan.timeout == other.plan.timeout &&
           inputs == other.inputs;
  }
};

Decoded Decode(const std::vector<grpc::Slice>& slices) {
  Decoded decoded;
  auto message = ParseInferMessage(slices);
  if (!message.ok()) {
    decoded.status = message.status();
    return decoded;
  }
  auto plan = CheckInferMessage(*message);
  if (!plan.ok()) {
    decoded.status = plan.status();
    return decoded;
  }
  decoded.plan = *plan;
  for (size_t k = 0; k < plan->model->inputs.size(); ++k) {
    std::string bytes(static_cast<size_t>(plan->tensor_bytes), '\0');
    CopyInput(*plan, static_cast<int>(k), reinterpret_cast<std::byte*>(bytes.data()));
    decoded.inputs.push_back(std::move(bytes));
  }
  return decoded;
}

Decoded Decode(const std::string& bytes) { return Decode(Sliced(bytes, bytes.size())); }
Decoded Decode(const ModelInferRequest& request) { return Decode(request.SerializeAsString()); }

// The status of a good forward FP16 request of shape [4,8] after `edit`.
absl::Status StatusAfter(const Edit& edit) {
  ModelInferRequest request = GoodRequest(kForwardFp16, {4, 8});
  edit(&request);
  return Decode(request).status;
}

#define EXPECT_STATUS(actual, expected_code, expected_message)        \
  do {                                                                \
    const absl::Status actual_status = (actual);                      \
    EXPECT_EQ(actual_status.code(), absl::StatusCode::expected_code); \
    EXPECT_EQ(actual_status.message(), expected_message);             \
  } while (false)

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
                "unknown model 'nope'");
  EXPECT_STATUS(StatusAfter([](auto* r) { r->clear_model_name(); }), kNotFound, "unknown model ''");
  EXPECT_STATUS(StatusAfter([](auto* r) { r->set_model_name("swiglu_forward_FP16"); }), kNotFound,
                "unknown model 'swiglu_forward_FP16'");
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

// --- The wire format

// The fields of a serialized message, each with its tag.
std::vector<std::string> SplitFields(const std::string& bytes) {
  std::vector<std::string> fields;
  size_t begin = 0;
  while (begin < bytes.size()) {
    const std::vector<grpc::Slice> slices = Sliced(bytes.substr(begin), bytes.size());
    SliceReader reader(slices);
    uint64_t tag = 0, size = 0;
    EXPECT_TRUE(reader.ReadVarint(&tag) && (tag & 7) == 2 && reader.ReadVarint(&size));
    const size_t field_bytes = reader.position() + size;
    fields.push_back(bytes.substr(begin, field_bytes));
    begin += field_bytes;
  }
  return fields;
}

ModelInferRequest RequestWithEverything() {
  ModelInferRequest request = GoodRequest(kBackwardBf16, {2, 3});
  request.set_model_version("1");
  request.set_id("an id");
  (*request.mutable_parameters())["timeout"].set_int64_param(1000000);
  request.add_outputs()->set_name("de");
  return request;
}

TEST(InferDecoderTest, TakesFieldsInAnyOrder) {
  const std::string bytes = RequestWithEverything().SerializeAsString();
  const Decoded expected = Decode(bytes);
  ASSERT_TRUE(expected.status.ok());
  // Inputs and raw entries keep their order among themselves: it is their meaning.
  std::vector<std::string> inputs, raw, others;
  for (std::string& field : SplitFields(bytes)) {
    const int number = static_cast<unsigned char>(field[0]) >> 3;
    (number == 5 ? inputs : number == 7 ? raw : others).push_back(std::move(field));
  }
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    std::shuffle(others.begin(), others.end(), random);
    std::vector<int> kinds(inputs.size(), 0);
    kinds.insert(kinds.end(), raw.size(), 1);
    kinds.insert(kinds.end(), others.size(), 2);
    std::shuffle(kinds.begin(), kinds.end(), random);
    size_t next[3] = {0, 0, 0};
    std::string shuffled;
    for (const int kind : kinds) {
      shuffled += (kind == 0 ? inputs : kind == 1 ? raw : others)[next[kind]++];
    }
    EXPECT_TRUE(Decode(shuffled) == expected) << Decode(shuffled).status;
  }
}

TEST(InferDecoderTest, SkipsUnknownFieldsAndGroups) {
  const std::string group = Tag(201, 3) + Tag(1, 0) + Varint(5) + Tag(2, 3) + Tag(2, 4) +
                            BytesField(3, "xyz") + Tag(201, 4);
  const std::string unknown[] = {Tag(100, 0) + Varint(1u << 31), Tag(101, 1) + std::string(8, 'x'),
                                 BytesField(102, "text"), Tag(103, 5) + std::string(4, 'x'), group};
  const std::vector<std::string> fields = SplitFields(RequestWithEverything().SerializeAsString());
  const Decoded expected = Decode(RequestWithEverything());
  for (const std::string& extra : unknown) {
    for (size_t place = 0; place <= fields.size(); ++place) {
      std::string bytes;
      for (size_t i = 0; i <= fields.size(); ++i) {
        if (i == place) bytes += extra;
        if (i < fields.size()) bytes += fields[i];
      }
      EXPECT_TRUE(Decode(bytes) == expected) << Decode(bytes).status;
    }
  }
}

TEST(InferDecoderTest, RefusesGroupsThatAreDeepOrNeverEnd) {
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += Tag(200, 3);
  EXPECT_EQ(Decode(deep).status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_STATUS(Decode(Tag(200, 3) + Tag(1, 0) + Varint(1)).status, kInvalidArgument,
                "malformed ModelInferRequest: field 200 at byte 0");
  EXPECT_STATUS(Decode(Tag(200, 3) + Tag(201, 4)).status, kInvalidArgument,
                "malformed ModelInferRequest: field 200 at byte 0");
  EXPECT_STATUS(Decode(Tag(200, 4)).status, kInvalidArgument,
                "malformed ModelInferRequest: field 200 at byte 0");
}

TEST(InferDecoderTest, SaysWhereAMessageIsMalformed) {
  const std::string name = BytesField(1, kForwardFp16);  // 21 bytes
  ASSERT_EQ(name.size(), 21u);
  const std::pair<std::string, std::string> cases[] = {
      {std::string(1, '\x80'), "no field at byte 0"},             // half a tag
      {name + std::string(1, '\x07'), "no field at byte 21"},     // field 0
      {name + std::string(1, '\x00'), "no field at byte 21"},     // field 0
      {name + std::string(10, '\xff'), "no field at byte 21"},    // an overlong tag
      {name + Varint(uint64_t{1} << 35), "no field at byte 21"},  // past the last field number
      {name + Tag(9, 6), "field 9 at byte 21"},                   // no such wire type
      {name + Tag(9, 0), "field 9 at byte 21"},                   // no value
      {name + Tag(9, 0) + std::string(11, '\x80'), "field 9 at byte 21"},
      {name + Tag(9, 1) + "1234567", "field 9 at byte 21"},           // seven of eight bytes
      {name + Tag(9, 5) + "123", "field 9 at byte 21"},               // three of four
      {name + Tag(7, 2) + Varint(5) + "1234", "field 7 at byte 21"},  // raw, cut short
      {name + Tag(7, 2), "field 7 at byte 21"},                       // raw without a length
      {name + Tag(7, 2) + Varint(~uint64_t{0}), "field 7 at byte 21"},
      {name + Tag(2, 2) + Varint(~uint64_t{0}), "field 2 at byte 21"},
      {name + Tag(2, 2) + Varint(uint64_t{1} << 63), "field 2 at byte 21"},
      {name + BytesField(5, std::string(1, '\x0a')), "field 5 at byte 21"},  // inside an input
      {name + BytesField(3, "\xff\xfe"), "field 3 at byte 21"},              // not UTF-8
      {BytesField(7, "raw") + name + BytesField(3, "\xff\xfe"), "field 3 at byte 26"},
  };
  for (const auto& [bytes, where] : cases) {
    EXPECT_STATUS(Decode(bytes).status, kInvalidArgument, "malformed ModelInferRequest: " + where);
  }
}

TEST(InferDecoderTest, RefusesAnEmptyMessageForItsModel) {
  EXPECT_STATUS(Decode(std::string()).status, kNotFound, "unknown model ''");
}

// Unpacked typed contents, and a raw entry under another wire type, are legal protobuf.
TEST(InferDecoderTest, TakesUnpackedTypedContents) {
  ModelInferRequest request;
  request.set_model_name(kForwardFp32);
  std::string bytes = request.SerializeAsString();
  for (const char* name : {"e", "g"}) {
    const std::string one_float = Tag(6, 5) + std::string("\0\0\x80\x3f", 4);
    bytes += BytesField(5, BytesField(1, name) + BytesField(2, "FP32") + Tag(3, 0) + Varint(2) +
                               BytesField(5, one_float + one_float));
  }
  const Decoded decoded = Decode(bytes);
  ASSERT_TRUE(decoded.status.ok()) << decoded.status;
  EXPECT_EQ(decoded.inputs[0], std::string("\0\0\x80\x3f\0\0\x80\x3f", 8));
}

TEST(InferDecoderTest, GivesTheSameResultHoweverTheMessageIsSliced) {
  for (const ModelInferRequest& request :
       {RequestWithEverything(), TypedRequest({1, 2, 3}, {4, 5, 6})}) {
    const std::string bytes = request.SerializeAsString();
    const Decoded expected = Decode(bytes);
    ASSERT_TRUE(expected.status.ok());
    for (size_t slice_bytes = 1; slice_bytes < bytes.size(); ++slice_bytes) {
      EXPECT_TRUE(Decode(Sliced(bytes, slice_bytes)) == expected) << slice_bytes;
    }
    for (size_t split = 0; split <= bytes.size(); ++split) {
      const std::vector<grpc::Slice> two = {grpc::Slice(bytes.substr(0, split)),
                                            grpc::Slice(bytes.substr(split))};
      EXPECT_TRUE(Decode(two) == expected) << "split at " << split;
    }
  }
}

// A cut that falls between two fields leaves a valid message, which then lacks something.
TEST(InferDecoderTest, RefusesAMessageCutAnywhere) {
  for (const ModelInferRequest& request :
       {RequestWithEverything(), TypedRequest({1, 2, 3}, {4, 5, 6})}) {
    const std::string bytes = request.SerializeAsString();
    for (size_t size = 0; size < bytes.size(); ++size) {
      const Decoded decoded = Decode(bytes.substr(0, size));
      const bool complete = ModelInferRequest().ParseFromString(bytes.substr(0, size));
      const bool malformed =
          absl::StartsWith(decoded.status.message(), "malformed ModelInferRequest: ");
      EXPECT_FALSE(decoded.status.ok()) << size;
      EXPECT_EQ(malformed, !complete) << size << ": " << decoded.status;
      if (malformed) {
        EXPECT_EQ(decoded.status.code(), absl::StatusCode::kInvalidArgument);
      }
    }
  }
}

// --- The bound on what is beside the tensors.

TEST(InferDecoderTest, LeavesPackedTypedContentsInTheirSlices) {
  const std::vector<float> e(100'000, 1.5f), g(100'000, -2.0f);
  const std::string bytes = TypedRequest(e, g).SerializeAsString();
  const std::vector<grpc::Slice> slices = Sliced(bytes, 8192);
  auto message = ParseInferMessage(slices);
  ASSERT_TRUE(message.ok()) << message.status();
  EXPECT_LT(message->envelope.ByteSizeLong(), 100u);
  ASSERT_EQ(message->typed.size(), 2u);
  EXPECT_EQ(message->typed[1].size_bytes, 400'000u);
  const Decoded decoded = Decode(slices);
  ASSERT_TRUE(decoded.status.ok()) << decoded.status;
  EXPECT_EQ(std::memcmp(decoded.inputs[0].data(), e.data(), 400'000), 0);
  EXPECT_EQ(std::memcmp(decoded.inputs[1].data(), g.data(), 400'000), 0);
}

TEST(InferDecoderTest, TakesTypedContentsInSeveralRuns) {
  ModelInferRequest request = TypedRequest({1, 2}, {3, 4});
  const float five = 5;
  std::string run(reinterpret_cast<const char*>(&five), sizeof(five));
  // A second contents field of input g, which protobuf merges with the first.
  std::string input = request.inputs(1).SerializeAsString() + BytesField(5, BytesField(6, run));
  ModelInferRequest first = request;
  first.mutable_inputs()->RemoveLast();
  Decoded decoded = Decode(first.SerializeAsString() + BytesField(5, input));
  EXPECT_STATUS(decoded.status, kInvalidArgument,
                "input 'g' has 12 bytes; shape [2] of FP32 needs 8");
}

TEST(InferDecoderTest, RefusesMoreThan64KiBBesideTheTensors) {
  const char kSentence[] = "request has more than 65536 bytes beside its tensors";
  ModelInferRequest request = GoodRequest(kForwardFp16, {2});
  const size_t rest = request.ByteSizeLong() - 2 * (1 + 1 + 4) + 4;  // without raw; id's own header
  request.set_id(std::string(65536 - rest, 'x'));
  EXPECT_TRUE(Decode(request).status.ok()) << Decode(request).status;
  request.set_id(request.id() + "x");
  EXPECT_STATUS(Decode(request).status, kResourceExhausted, kSentence);

  std::string inputs, raw_entries, unpacked;
  for (int i = 0; i < 40'000; ++i) inputs += BytesField(5, "");
  EXPECT_STATUS(Decode(inputs).status, kResourceExhausted, kSentence);
  for (int i = 0; i < 40'000; ++i) raw_entries += BytesField(7, "");
  EXPECT_STATUS(Decode(raw_entries).status, kResourceExhausted, kSentence);
  for (int i = 0; i < 40'000; ++i) unpacked += Tag(6, 5) + std::string(4, '\0');
  EXPECT_STATUS(Decode(BytesField(5, BytesField(5, unpacked))).status, kResourceExhausted,
                kSentence);
  const std::string int64s(100'000, '\1');
  EXPECT_STATUS(Decode(BytesField(5, BytesField(5, BytesField(3, int64s)))).status,
                kResourceExhausted, kSentence);
}

// The generated parser is the judge of what is a message. It is a little more lenient: it takes
// overlong lengths modulo 2^32, which ours refuses.
TEST(InferDecoderTest, SurvivesMutatedBytes) {
  // Bad UTF-8 is worth a line on stderr to protobuf, each time.
  const google::protobuf::LogSilencer silencer;
  std::mt19937 random(7);
  const std::string goods[] = {RequestWithEverything().SerializeAsString(),
                               TypedRequest({1, 2, 3}, {4, 5, 6}).SerializeAsString()};
  int num_ok = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = goods[round % 2];
    const int num_changes = 1 + static_cast<int>(random() % 4);
    for (int i = 0; i < num_changes; ++i) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    const std::vector<grpc::Slice> slices = Sliced(bytes, 1 + random() % bytes.size());
    const Decoded decoded = Decode(slices);
    num_ok += decoded.status.ok();
    if (ParseInferMessage(slices).ok()) {
      EXPECT_TRUE(ModelInferRequest().ParseFromString(bytes));
    }
    EXPECT_TRUE(Decode(bytes) == decoded);
  }
  // Changed tensor bytes are fine.
  EXPECT_GT(num_ok, 100);
}

}  // namespace
}  // namespace swiglu::server
