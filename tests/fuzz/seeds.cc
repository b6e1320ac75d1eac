// SPDX-License-Identifier: Apache-2.0
//
// The seeds: what clients send, what the protocol allows besides, and what is refused.
#include "tests/fuzz/seeds.h"

#include "tests/rpc/requests.h"

namespace swiglu::server {
namespace {

using absl::StatusCode;
using inference::ModelInferRequest;

constexpr char kOneFloat[] = {0, 0, '\x80', '\x3f'};
const std::string kFloat(kOneFloat, sizeof(kOneFloat));

ModelInferRequest WithEverything() {
  ModelInferRequest request = GoodRequest(kBackwardBf16, {2, 3});
  request.set_model_version("1");
  request.set_id("an id");
  (*request.mutable_parameters())["timeout"].set_int64_param(1000000);
  request.add_outputs()->set_name("de");
  // One entry a map: their order is not the same from run to run.
  (*request.mutable_outputs(0)->mutable_parameters())["x"].set_double_param(0.5);
  request.add_outputs()->set_name("h");
  return request;
}

ModelInferRequest WithRegion() {
  ModelInferRequest request = GoodRequest(kForwardFp16, {4});
  (*request.mutable_inputs(0)->mutable_parameters())["shared_memory_region"].set_string_param("r");
  return request;
}

// A forward request in FP32 whose inputs have the fields `contents`.
std::string WithContents(const std::string& dim, const std::string& contents) {
  std::string message = BytesField(1, kForwardFp32);
  for (const char* name : {"e", "g"}) {
    message += BytesField(5, BytesField(1, name) + BytesField(2, "FP32") + dim + contents);
  }
  return message;
}

std::string Dim(uint64_t size) { return Tag(3, 0) + Varint(size); }

std::string Backwards(const ModelInferRequest& request) {
  std::string message;
  for (const std::string& raw : request.raw_input_contents()) message += BytesField(7, raw);
  for (const auto& input : request.inputs()) message += BytesField(5, input.SerializeAsString());
  return message + BytesField(1, request.model_name());
}

std::string Repeated(const std::string& field, int count) {
  std::string message;
  for (int i = 0; i < count; ++i) message += field;
  return message;
}

std::string UnknownFields() {
  return Tag(100, 0) + Varint(uint64_t{1} << 63) + Tag(101, 1) + "8 bytes." + BytesField(102, "t") +
         Tag(103, 5) + "four";
}

std::string Group() {
  return Tag(201, 3) + Tag(1, 0) + Varint(5) + Tag(2, 3) + Tag(2, 4) + BytesField(3, "xyz") +
         Tag(201, 4);
}

// A raw entry whose length has needless bytes: five in all are legal, six are not.
std::string RawWithLongLength(int num_bytes) {
  return Tag(7, 2) + '\x81' + std::string(num_bytes - 2, '\x80') + std::string(1, '\0') + "r";
}

}  // namespace

std::vector<Seed> Seeds() {
  const std::string forward = GoodRequest(kForwardFp16, {2, 3}).SerializeAsString();
  const std::string backward = WithEverything().SerializeAsString();
  const std::string typed = TypedRequest({1, -2, 3}, {4, 5, -6}).SerializeAsString();
  const std::string run = BytesField(6, kFloat + kFloat);
  return {
      {"forward_raw", StatusCode::kOk, "", forward},
      {"forward_raw_by_bytes", StatusCode::kOk, "\x01", forward},
      {"forward_fp32_raw", StatusCode::kOk, "\x05\x11",
       GoodRequest(kForwardFp32, {4}).SerializeAsString()},
      {"forward_no_dims", StatusCode::kOk, "\x03",
       GoodRequest(kForwardFp16, {}).SerializeAsString()},
      {"backward_everything", StatusCode::kOk, "", backward},
      {"backward_everything_cut", StatusCode::kOk, std::string("\x02\0\x07\x1d", 4), backward},
      {"backwards_order", StatusCode::kOk, "\x0b", Backwards(WithEverything())},
      {"typed_packed", StatusCode::kOk, "", typed},
      {"typed_packed_by_threes", StatusCode::kOk, "\x03", typed},
      {"typed_unpacked", StatusCode::kOk, "",
       WithContents(Dim(2), BytesField(5, Tag(6, 5) + kFloat + Tag(6, 5) + kFloat))},
      {"typed_two_runs", StatusCode::kOk, "\x06",
       WithContents(Dim(4), BytesField(5, run) + BytesField(5, run))},
      {"typed_with_unknown_fields", StatusCode::kOk, "\x04",
       WithContents(Dim(2), BytesField(5, UnknownFields() + run + Group()) + UnknownFields())},
      {"typed_wrong_field", StatusCode::kInvalidArgument, "",
       WithContents(Dim(2), BytesField(5, BytesField(3, "\x01\x02")))},
      {"typed_and_raw", StatusCode::kInvalidArgument, "", typed + BytesField(7, kFloat)},
      {"typed_odd_run", StatusCode::kInvalidArgument, "",
       WithContents(Dim(2), BytesField(5, BytesField(6, "12345")))},
      {"empty_tensors_raw", StatusCode::kOk, "",
       GoodRequest(kForwardFp16, {0, 4}).SerializeAsString()},
      {"empty_tensors_typed", StatusCode::kOk, "", TypedRequest({}, {}).SerializeAsString()},
      {"empty_tensors_no_data", StatusCode::kOk, "", WithContents(Dim(0), "")},
      {"packed_dims", StatusCode::kOk, "",
       WithContents(BytesField(3, "\x01\x02"), BytesField(5, run))},
      {"negative_dim", StatusCode::kInvalidArgument, "",
       WithContents(Dim(~uint64_t{0}), BytesField(5, run))},
      {"huge_dims", StatusCode::kInvalidArgument, "",
       WithContents(Dim(uint64_t{1} << 40) + Dim(uint64_t{1} << 40), BytesField(5, run))},
      {"wrong_size", StatusCode::kInvalidArgument, "", WithContents(Dim(3), BytesField(5, run))},
      {"many_raw_entries", StatusCode::kInvalidArgument, "",
       forward + Repeated(BytesField(7, ""), 7)},
      {"too_many_raw_entries", StatusCode::kResourceExhausted, "",
       Repeated(BytesField(7, ""), 1171)},
      {"raw_of_another_wire_type", StatusCode::kOk, "",
       forward + Tag(7, 0) + Varint(300) + Tag(7, 5) + "four"},
      {"unknown_fields", StatusCode::kOk, "\x07", UnknownFields() + forward + UnknownFields()},
      {"group", StatusCode::kOk, "\x02", Group() + backward + Group()},
      {"group_without_end", StatusCode::kInvalidArgument, "", forward + Tag(200, 3) + Tag(1, 0)},
      {"group_of_another_end", StatusCode::kInvalidArgument, "",
       Tag(200, 3) + Tag(201, 4) + forward},
      {"deep_groups", StatusCode::kInvalidArgument, "",
       Repeated(Tag(200, 3), 33) + Repeated(Tag(200, 4), 33) + forward},
      {"long_tag", StatusCode::kOk, "\x01", std::string("\x8a\x80\x80\x80\x00\x01x", 7) + forward},
      {"long_length", StatusCode::kInvalidArgument, "", forward + RawWithLongLength(5)},
      {"too_long_length", StatusCode::kInvalidArgument, "", forward + RawWithLongLength(6)},
      {"too_long_tag", StatusCode::kInvalidArgument, "",
       forward + std::string("\xba\x80\x80\x80\x80\x00\x01r", 8)},
      {"region", StatusCode::kUnimplemented, "", WithRegion().SerializeAsString()},
      {"bad_utf8", StatusCode::kInvalidArgument, "", forward + BytesField(3, "\xff\xfe")},
      {"unknown_model", StatusCode::kNotFound, "", BytesField(1, "nope")},
      {"nothing", StatusCode::kNotFound, "", ""},
      {"cut_in_a_tag", StatusCode::kInvalidArgument, "", forward + "\xba"},
      {"cut_in_a_length", StatusCode::kInvalidArgument, "\x01", forward + "\x3a\x80"},
      {"cut_in_raw", StatusCode::kInvalidArgument, "", forward.substr(0, forward.size() - 1)},
      {"cut_in_typed", StatusCode::kInvalidArgument, "\x08", typed.substr(0, typed.size() - 2)},
      {"cut_in_an_input", StatusCode::kInvalidArgument, "", backward.substr(0, 60)},
  };
}

}  // namespace swiglu::server
