// SPDX-License-Identifier: Apache-2.0
//
// Requests for the tests of the RPC layer: messages of the protocol, and their bytes in slices of
// any sizes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/slice.h"
#include "proto/inference.pb.h"
#include "server/core/model.h"

namespace swiglu::server {

inline constexpr char kInferMethod[] = "/inference.GRPCInferenceService/ModelInfer";
inline constexpr char kForwardFp16[] = "swiglu_forward_fp16";
inline constexpr char kForwardFp32[] = "swiglu_forward_fp32";
inline constexpr char kBackwardBf16[] = "swiglu_backward_bf16";

// What the refusal of an unknown model ends with.
inline constexpr char kKnownModels[] =
    ": this server has swiglu_forward_fp16, swiglu_forward_bf16, swiglu_forward_fp32, "
    "swiglu_backward_fp16, swiglu_backward_bf16, swiglu_backward_fp32";

inline int64_t NumElements(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  return count;
}

// Adds the metadata of an input.
inline void AddInput(const std::string& name, const std::string& datatype,
                     const std::vector<int64_t>& shape, inference::ModelInferRequest* request) {
  auto* input = request->add_inputs();
  input->set_name(name);
  input->set_datatype(datatype);
  input->mutable_shape()->Add(shape.begin(), shape.end());
}

// A good request: all of the model's inputs in its order, raw, every byte of input k being k + 1.
inline inference::ModelInferRequest GoodRequest(const Model& model,
                                                const std::vector<int64_t>& shape) {
  const size_t size = static_cast<size_t>(NumElements(shape) * ElementBytes(model.dtype));
  inference::ModelInferRequest request;
  request.set_model_name(model.name);
  for (size_t k = 0; k < model.inputs.size(); ++k) {
    AddInput(std::string(model.inputs[k]), std::string(DatatypeName(model.dtype)), shape, &request);
    request.add_raw_input_contents(std::string(size, static_cast<char>(k + 1)));
  }
  return request;
}

inline inference::ModelInferRequest GoodRequest(const std::string& model_name,
                                                const std::vector<int64_t>& shape) {
  return GoodRequest(*FindModel(model_name), shape);
}

// A good request for `swiglu_forward_fp32` with typed contents.
inline inference::ModelInferRequest TypedRequest(const std::vector<float>& e,
                                                 const std::vector<float>& g) {
  inference::ModelInferRequest request;
  request.set_model_name(kForwardFp32);
  const std::vector<float>* values[] = {&e, &g};
  const char* names[] = {"e", "g"};
  for (int k = 0; k < 2; ++k) {
    AddInput(names[k], "FP32", {static_cast<int64_t>(values[k]->size())}, &request);
    auto* contents = request.mutable_inputs(k)->mutable_contents()->mutable_fp32_contents();
    contents->Add(values[k]->begin(), values[k]->end());
  }
  return request;
}

// `bytes` as slices of at most `slice_bytes` each.
inline std::vector<grpc::Slice> Sliced(absl::string_view bytes, size_t slice_bytes) {
  std::vector<grpc::Slice> slices;
  for (size_t begin = 0; begin < bytes.size(); begin += slice_bytes) {
    const size_t count = std::min(slice_bytes, bytes.size() - begin);
    slices.emplace_back(static_cast<const void*>(bytes.data() + begin), count);
  }
  return slices;
}

inline std::string Concatenate(absl::Span<const grpc::Slice> slices) {
  std::string bytes;
  for (const grpc::Slice& slice : slices) bytes.append(slice.begin(), slice.end());
  return bytes;
}

inline std::string ToString(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  if (!buffer.Dump(&slices).ok()) return "";
  return Concatenate(slices);
}

// --- Wire primitives, for messages that the generated code cannot make.

inline std::string Varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes.push_back(static_cast<char>(value | 0x80));
  bytes.push_back(static_cast<char>(value));
  return bytes;
}

inline std::string Tag(int field_number, int wire_type) {
  return Varint(static_cast<uint64_t>(field_number) << 3 | wire_type);
}

inline std::string BytesField(int field_number, const std::string& value) {
  return Tag(field_number, 2) + Varint(value.size()) + value;
}

}  // namespace swiglu::server
