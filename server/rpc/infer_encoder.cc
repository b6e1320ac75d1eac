// SPDX-License-Identifier: Apache-2.0
//
// Hand-made protobuf framing around slices; everything small goes through the generated messages.
#include "server/rpc/infer_encoder.h"

#include <utility>

#include "proto/inference.pb.h"

namespace swiglu::server {
namespace {

// Appends the tag and the length of a length-delimited field.
void AppendFieldHeader(int field_number, size_t size, std::string* out) {
  uint64_t values[] = {(static_cast<uint64_t>(field_number) << 3) | 2, size};
  for (uint64_t value : values) {
    while (value >= 0x80) {
      out->push_back(static_cast<char>(value | 0x80));
      value >>= 7;
    }
    out->push_back(static_cast<char>(value));
  }
}

// Everything of the response but the tensors' bytes.
inference::ModelInferResponse ResponseMetadata(const InferPlan& plan, const std::string& id) {
  inference::ModelInferResponse metadata;
  metadata.set_model_name(plan.model->name.data(), plan.model->name.size());
  metadata.set_model_version("1");
  metadata.set_id(id);
  for (const int k : plan.outputs) {
    auto* output = metadata.add_outputs();
    const absl::string_view name = plan.model->outputs[k];
    const absl::string_view datatype = DatatypeName(plan.model->dtype);
    output->set_name(name.data(), name.size());
    output->set_datatype(datatype.data(), datatype.size());
    output->mutable_shape()->Add(plan.shape.begin(), plan.shape.end());
  }
  return metadata;
}

}  // namespace

grpc::Slice SharedSlice(std::shared_ptr<const void> owner, const std::byte* data,
                        size_t size_bytes) {
  auto* held = new std::shared_ptr<const void>(std::move(owner));
  return grpc::Slice(
      const_cast<std::byte*>(data), size_bytes,
      [](void* user) { delete static_cast<std::shared_ptr<const void>*>(user); }, held);
}

EncodedMessage EncodeInferResponse(const InferPlan& plan, const std::string& id,
                                   absl::Span<const OutputPiece> pieces,
                                   const std::shared_ptr<const void>& owner) {
  EncodedMessage message;
  std::string framing = ResponseMetadata(plan, id).SerializeAsString();
  for (const int k : plan.outputs) {
    AppendFieldHeader(inference::ModelInferResponse::kRawOutputContentsFieldNumber,
                      static_cast<size_t>(plan.tensor_bytes), &framing);
    if (plan.tensor_bytes == 0) continue;
    message.Append(grpc::Slice(framing));
    framing.clear();
    for (const OutputPiece& piece : pieces) {
      message.Append(SharedSlice(owner, piece.outputs[k], piece.size_bytes));
    }
  }
  if (!framing.empty()) message.Append(grpc::Slice(framing));
  return message;
}

int64_t ResponseTensorBytes(const InferPlan& plan) {
  return plan.tensor_bytes * static_cast<int64_t>(plan.outputs.size());
}

int64_t ResponseBytes(const InferPlan& plan, const std::string& id) {
  std::string header;
  AppendFieldHeader(inference::ModelInferResponse::kRawOutputContentsFieldNumber,
                    static_cast<size_t>(plan.tensor_bytes), &header);
  return static_cast<int64_t>(ResponseMetadata(plan, id).ByteSizeLong()) +
         static_cast<int64_t>(header.size() * plan.outputs.size()) + ResponseTensorBytes(plan);
}

EncodedMessage WrapForStream(EncodedMessage response) {
  std::string header;
  AppendFieldHeader(inference::ModelStreamInferResponse::kInferResponseFieldNumber,
                    response.size_bytes, &header);
  response.size_bytes += header.size();
  response.slices.insert(response.slices.begin(), grpc::Slice(header));
  return response;
}

EncodedMessage EncodeStreamError(const InferIdentity& identity, absl::string_view error_message) {
  inference::ModelStreamInferResponse response;
  response.set_error_message(error_message.data(), error_message.size());
  response.mutable_infer_response()->set_model_name(identity.model_name);
  response.mutable_infer_response()->set_id(identity.id);
  EncodedMessage message;
  message.Append(grpc::Slice(response.SerializeAsString()));
  return message;
}

}  // namespace swiglu::server
