// SPDX-License-Identifier: Apache-2.0
//
// Hand-made protobuf framing around slices. The metadata too: it goes with every response.
#include "server/codec/infer_encoder.h"

#include <algorithm>
#include <utility>

#include "proto/inference.pb.h"
#include "server/codec/errors.h"

namespace swiglu::server {
namespace {

// What the metadata of one output and an id of moderate length fit into.
constexpr size_t kUsualMetadataBytes = 160;

// The parameter by which Triton's clients see that no further answer to a request comes.
constexpr char kFinalResponse[] = "triton_final_response";

void AppendVarint(uint64_t value, std::string* out) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}

// Appends the tag and the length of a length-delimited field.
void AppendFieldHeader(int field_number, size_t size, std::string* out) {
  AppendVarint(static_cast<uint64_t>(field_number) << 3 | 2, out);
  AppendVarint(size, out);
}

void AppendBytes(int field_number, absl::string_view bytes, std::string* out) {
  AppendFieldHeader(field_number, bytes.size(), out);
  out->append(bytes.data(), bytes.size());
}

// As protobuf encodes: nothing for an empty string.
void AppendString(int field_number, absl::string_view text, std::string* out) {
  if (!text.empty()) AppendBytes(field_number, text, out);
}

// The parameter that names the weights of the answer, as a field of a ModelInferResponse.
std::string EncodeWeights(const Weights& weights) {
  inference::ModelInferResponse response;
  (*response.mutable_parameters())["weights_sha256"].set_string_param(weights.sha256());
  return response.SerializeAsString();
}

std::string EncodeShape(absl::Span<const int64_t> shape) {
  std::string encoded;
  for (const int64_t dim : shape) AppendVarint(static_cast<uint64_t>(dim), &encoded);
  return encoded;
}

// Everything of the response but the tensors' bytes.
std::string EncodeMetadata(const InferPlan& plan, absl::string_view id) {
  using inference::ModelInferResponse;
  using Output = ModelInferResponse::InferOutputTensor;
  std::string metadata, output;
  metadata.reserve(kUsualMetadataBytes);
  const std::string shape = EncodeShape(plan.shape);
  AppendString(ModelInferResponse::kModelNameFieldNumber, plan.model->name, &metadata);
  AppendString(ModelInferResponse::kModelVersionFieldNumber, "1", &metadata);
  AppendString(ModelInferResponse::kIdFieldNumber, id, &metadata);
  if (plan.weights != nullptr) metadata += EncodeWeights(*plan.weights);
  for (const int k : plan.outputs) {
    const GradientOutput* const gradient = plan.model->FindGradient(k);
    output.clear();
    AppendString(Output::kNameFieldNumber, plan.model->OutputName(k), &output);
    AppendString(Output::kDatatypeFieldNumber,
                 DatatypeName(gradient == nullptr ? plan.model->dtype : Dtype::kFp32), &output);
    AppendString(Output::kShapeFieldNumber,
                 gradient == nullptr ? shape : EncodeShape(gradient->shape), &output);
    AppendBytes(ModelInferResponse::kOutputsFieldNumber, output, &metadata);
  }
  return metadata;
}

// The parameter `triton_final_response`, as a field of a ModelInferResponse.
std::string EncodeFinalMark() {
  inference::ModelInferResponse mark;
  (*mark.mutable_parameters())[kFinalResponse].set_bool_param(true);
  return mark.SerializeAsString();
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
  std::string framing = EncodeMetadata(plan, id);
  for (const int k : plan.outputs) {
    const int64_t inline_bytes = plan.IsInline(k) ? plan.OutputBytes(k) : 0;
    AppendFieldHeader(inference::ModelInferResponse::kRawOutputContentsFieldNumber,
                      static_cast<size_t>(inline_bytes), &framing);
    if (inline_bytes == 0) continue;
    message.Append(grpc::Slice(framing));
    framing.clear();
    if (plan.model->FindGradient(k) != nullptr) {
      message.Append(SharedSlice(owner, pieces[0].outputs[k], static_cast<size_t>(inline_bytes)));
      continue;
    }
    for (const OutputPiece& piece : pieces) {
      message.Append(SharedSlice(owner, piece.outputs[k], piece.size_bytes));
    }
  }
  if (!framing.empty()) message.Append(grpc::Slice(framing));
  return message;
}

int64_t ResponseTensorBytes(const InferPlan& plan) {
  int64_t bytes = 0;
  for (const int output : plan.outputs) {
    if (plan.IsInline(output)) bytes += plan.OutputBytes(output);
  }
  return bytes;
}

int64_t ResponseBytes(const InferPlan& plan, const std::string& id) {
  std::string headers;
  for (const int output : plan.outputs) {
    AppendFieldHeader(inference::ModelInferResponse::kRawOutputContentsFieldNumber,
                      static_cast<size_t>(plan.OutputBytes(output)), &headers);
  }
  return static_cast<int64_t>(EncodeMetadata(plan, id).size() + headers.size()) +
         ResponseTensorBytes(plan);
}

EncodedMessage WrapForStream(EncodedMessage response, const InferIdentity& identity) {
  // In front: a response ends with its tensors.
  const std::string mark = identity.wants_final_mark ? EncodeFinalMark() : "";
  std::string header;
  AppendFieldHeader(inference::ModelStreamInferResponse::kInferResponseFieldNumber,
                    mark.size() + response.size_bytes, &header);
  header += mark;
  response.size_bytes += header.size();
  response.slices.insert(response.slices.begin(), grpc::Slice(header));
  return response;
}

EncodedMessage EncodeStreamError(const InferIdentity& identity, absl::string_view error_message) {
  inference::ModelStreamInferResponse response;
  response.set_error_message(error_message.data(), error_message.size());
  response.mutable_infer_response()->set_model_name(errors::Echo(identity.model_name));
  response.mutable_infer_response()->set_id(errors::Echo(identity.id));
  if (identity.wants_final_mark) {
    auto& parameters = *response.mutable_infer_response()->mutable_parameters();
    parameters[kFinalResponse].set_bool_param(true);
  }
  EncodedMessage message;
  message.Append(grpc::Slice(response.SerializeAsString()));
  return message;
}

}  // namespace swiglu::server
