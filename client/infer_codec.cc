// SPDX-License-Identifier: Apache-2.0
//
// Writes the protobuf framing around the tensors by hand. All small parts of a message go through
// the generated classes.
#include "client/infer_codec.h"

#include <algorithm>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/wire_format_lite.h"
#include "grpcpp/support/proto_buffer_reader.h"
#include "proto/inference.pb.h"

namespace swiglu::client {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;
using google::protobuf::io::CodedOutputStream;
using google::protobuf::io::StringOutputStream;

constexpr uint32_t kRawInputTag =
    WireFormatLite::MakeTag(inference::ModelInferRequest::kRawInputContentsFieldNumber,
                            WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
constexpr uint32_t kRawOutputTag =
    WireFormatLite::MakeTag(inference::ModelInferResponse::kRawOutputContentsFieldNumber,
                            WireFormatLite::WIRETYPE_LENGTH_DELIMITED);

constexpr uint32_t kStreamedResponseTag =
    WireFormatLite::MakeTag(inference::ModelStreamInferResponse::kInferResponseFieldNumber,
                            WireFormatLite::WIRETYPE_LENGTH_DELIMITED);

// The framing of a tensor's bytes: a tag of one byte, and a length of at most five bytes.
constexpr int64_t kMaxFrameBytes = 6;
// What a response may have beyond the request's fields: the version, and longer length fields.
constexpr int64_t kResponseSlackBytes = 64;
// What the parameter `weights_sha256` of a response takes, and more.
constexpr int64_t kWeightsBytes = 128;
// A limit on what a response has beside its tensors. A correct response stays far below it.
constexpr size_t kMaxEnvelopeBytes = size_t{1} << 20;

using Parameters = google::protobuf::Map<std::string, inference::InferParameter>;

void SetPart(const RegionPart& part, Parameters* parameters) {
  (*parameters)["shared_memory_region"].set_string_param(part.region);
  (*parameters)["shared_memory_byte_size"].set_int64_param(part.size_bytes);
  if (part.offset > 0) (*parameters)["shared_memory_offset"].set_int64_param(part.offset);
}

template <typename Tensors>
int64_t NumIn(const Tensors& tensors, bool in_regions) {
  return std::count_if(tensors.begin(), tensors.end(),
                       [=](const auto& tensor) { return tensor.part.has_value() == in_regions; });
}

// The request without its tensors' bytes. It names its outputs only if one of them is in a region
// or is a gradient of weights.
std::string SerializeEnvelope(const Inference& inference, const RequestFields& fields) {
  inference::ModelInferRequest request;
  request.set_model_name(inference.model.data(), inference.model.size());
  request.set_id(fields.id.data(), fields.id.size());
  if (fields.priority > 0) {
    (*request.mutable_parameters())["priority"].set_uint64_param(fields.priority);
  }
  const absl::string_view datatype = DatatypeName(inference.dtype);
  for (const Inference::Input& input : inference.inputs) {
    auto* tensor = request.add_inputs();
    tensor->set_name(input.name.data(), input.name.size());
    tensor->set_datatype(datatype.data(), datatype.size());
    tensor->mutable_shape()->Add(inference.shape.begin(), inference.shape.end());
    if (input.part) SetPart(*input.part, tensor->mutable_parameters());
  }
  if (NumIn(inference.outputs, true) == 0 && !inference.has_gradients()) {
    return request.SerializeAsString();
  }
  for (const Inference::Output& output : inference.outputs) {
    auto* tensor = request.add_outputs();
    tensor->set_name(output.name.data(), output.name.size());
    if (output.part) SetPart(*output.part, tensor->mutable_parameters());
  }
  return request.SerializeAsString();
}

absl::Status Bad(const Inference& inference, absl::string_view what) {
  return absl::InternalError(absl::StrCat("bad response of '", inference.model, "': ", what));
}

// The dtype and the shape of an output.
Dtype DtypeOf(const Inference& inference, const Inference::Output& output) {
  return output.gradient_shape ? Dtype::kFp32 : inference.dtype;
}
const Shape& ShapeOf(const Inference& inference, const Inference::Output& output) {
  return output.gradient_shape ? *output.gradient_shape : inference.shape;
}

template <typename Tensors>
int64_t SumOfBytes(const Tensors& tensors) {
  int64_t bytes = 0;
  for (const auto& tensor : tensors) bytes += static_cast<int64_t>(tensor.bytes.size());
  return bytes;
}

absl::Status Malformed(const Inference& inference) {
  return Bad(inference, "not a ModelInferResponse");
}

// Reads the bytes of the next tensor into `output`.
absl::Status ReadTensor(const Inference& inference, const Inference::Output& output,
                        CodedInputStream& in) {
  uint64_t size = 0;
  if (!in.ReadVarint64(&size)) return Malformed(inference);
  if (size != output.bytes.size()) {
    const std::string expected =
        output.part ? "it belongs into a region"
                    : absl::StrCat("shape ", FormatShape(ShapeOf(inference, output)), " of ",
                                   DatatypeName(DtypeOf(inference, output)), " needs ",
                                   output.bytes.size());
    return Bad(inference,
               absl::StrCat("output '", output.name, "' has ", size, " bytes; ", expected));
  }
  if (!in.ReadRaw(output.bytes.data(), static_cast<int>(size))) return Malformed(inference);
  return absl::OkStatus();
}

// Appends a field other than a tensor's bytes to `envelope`. False if malformed or too long.
bool CopyField(uint32_t tag, CodedInputStream& in, std::string* envelope) {
  if (WireFormatLite::GetTagWireType(tag) != WireFormatLite::WIRETYPE_LENGTH_DELIMITED) {
    return WireFormatLite::SkipField(&in, tag);
  }
  uint64_t size = 0;
  std::string field;
  if (!in.ReadVarint64(&size) || size > kMaxEnvelopeBytes - envelope->size()) return false;
  if (!in.ReadString(&field, static_cast<int>(size))) return false;
  AppendFrame(tag, field.size(), envelope);
  envelope->append(field);
  return envelope->size() <= kMaxEnvelopeBytes;
}

// The SHA-256 of the weights that the response names.
absl::StatusOr<std::string> WeightsOf(const Inference& inference,
                                      const inference::ModelInferResponse& response) {
  const auto found = response.parameters().find("weights_sha256");
  if (found != response.parameters().end() && !found->second.string_param().empty()) {
    return found->second.string_param();
  }
  if (!inference.is_mlp()) return "";
  return Bad(inference, "it does not say which weights computed it");
}

// Checks the outputs' names, datatypes and shapes.
absl::Status CheckForms(const Inference& inference, const inference::ModelInferResponse& response) {
  const int expected = static_cast<int>(inference.outputs.size());
  if (response.outputs_size() != expected) {
    return Bad(inference,
               absl::StrCat("it has ", response.outputs_size(), " outputs; expected ", expected));
  }
  for (int k = 0; k < expected; ++k) {
    const auto& output = response.outputs(k);
    const absl::string_view name = inference.outputs[k].name;
    const absl::string_view dtype = DatatypeName(DtypeOf(inference, inference.outputs[k]));
    const Shape& expected_shape = ShapeOf(inference, inference.outputs[k]);
    const absl::Span<const int64_t> shape(output.shape().data(), output.shape_size());
    if (output.name() != name) {
      return Bad(inference,
                 absl::StrCat("an output is '", output.name(), "'; expected '", name, "'"));
    }
    if (output.datatype() != dtype) {
      return Bad(inference,
                 absl::StrCat("output '", name, "' is ", output.datatype(), "; expected ", dtype));
    }
    if (shape != absl::MakeConstSpan(expected_shape)) {
      return Bad(inference, absl::StrCat("shape of '", name, "' is ", FormatShape(shape),
                                         "; expected ", FormatShape(expected_shape)));
    }
  }
  return absl::OkStatus();
}

// Checks a response without its tensors' bytes, and returns the SHA-256 of its weights. An empty
// `id` is not compared.
absl::StatusOr<std::string> CheckEnvelope(const Inference& inference, absl::string_view id,
                                          const std::string& envelope) {
  inference::ModelInferResponse response;
  if (!response.ParseFromString(envelope)) return Malformed(inference);
  // Not every server repeats ids.
  if (!id.empty() && !response.id().empty() && response.id() != id) {
    return Bad(inference,
               absl::StrCat("it answers the message '", response.id(), "', not '", id, "'"));
  }
  const absl::Status status = CheckForms(inference, response);
  if (!status.ok()) return status;
  return WeightsOf(inference, response);
}

// Reads a ModelInferResponse to the end of `in`.
absl::StatusOr<std::string> Decode(const Inference& inference, absl::string_view id,
                                   CodedInputStream& in) {
  std::string envelope;
  size_t num_raw = 0;
  while (const uint32_t tag = in.ReadTag()) {
    if (tag != kRawOutputTag) {
      if (!CopyField(tag, in, &envelope)) return Malformed(inference);
      continue;
    }
    if (num_raw == inference.outputs.size()) {
      return Bad(inference, absl::StrCat("it has the bytes of more than ", num_raw, " outputs"));
    }
    const absl::Status status = ReadTensor(inference, inference.outputs[num_raw], in);
    if (!status.ok()) return status;
    ++num_raw;
  }
  if (!in.ConsumedEntireMessage()) return Malformed(inference);
  if (num_raw != inference.outputs.size()) {
    return Bad(inference, absl::StrCat("it has the bytes of ", num_raw, " outputs; expected ",
                                       inference.outputs.size()));
  }
  return CheckEnvelope(inference, id, envelope);
}

// Decodes a message after `read_header` has read what precedes a ModelInferResponse.
template <typename ReadHeader>
absl::StatusOr<std::string> DecodeAfter(ReadHeader read_header, grpc::ByteBuffer response,
                                        const Inference& inference, absl::string_view id) {
  if (response.Length() > static_cast<size_t>(std::numeric_limits<int>::max())) {
    return Bad(inference, absl::StrCat("it has ", response.Length(), " bytes"));
  }
  const auto size = static_cast<int>(response.Length());
  grpc::ProtoBufferReader reader(&response);
  if (!reader.status().ok()) return Malformed(inference);
  CodedInputStream in(&reader);
  in.SetTotalBytesLimit(std::numeric_limits<int>::max());
  const absl::Status status = read_header(in, size);
  if (!status.ok()) return status;
  return Decode(inference, id, in);
}

}  // namespace

int64_t NumCarried(const Inference& inference) {
  return std::max(NumIn(inference.inputs, false), NumIn(inference.outputs, false));
}

int64_t CarriedBytes(const Inference& inference) {
  return std::max(SumOfBytes(inference.inputs), SumOfBytes(inference.outputs));
}

int64_t LargestMessageBytes(const Inference& inference) {
  const auto num_tensors =
      static_cast<int64_t>(std::max(inference.inputs.size(), inference.outputs.size()));
  const auto envelope_bytes = static_cast<int64_t>(SerializeEnvelope(inference, {}).size());
  // No overflow: memory is so small that three times its size fits into 64 bits.
  return envelope_bytes + kResponseSlackBytes + (inference.is_mlp() ? kWeightsBytes : 0) +
         num_tensors * kMaxFrameBytes + CarriedBytes(inference);
}

bool FitsInto(const Inference& inference, int64_t most_bytes) {
  // Far more than all text of a message takes. What has many dimensions or long names is encoded.
  constexpr int64_t kMostEnvelopeBytes = 4096;
  if (inference.shape.size() > 16 || inference.is_mlp() || inference.uses_regions()) return false;
  // Neither inputs nor outputs are more than three.
  return 3 * inference.tensor_bytes() <= most_bytes - kMostEnvelopeBytes;
}

int64_t MaxPartOverhead(const Inference& inference) {
  int64_t bytes = 512;
  // The caller chooses the name of an MLP.
  if (inference.is_mlp()) bytes += kWeightsBytes + static_cast<int64_t>(inference.model.size());
  const auto add = [&bytes](const auto& tensors) {
    for (const auto& tensor : tensors) {
      if (tensor.part) bytes += 160 + static_cast<int64_t>(tensor.part->region.size());
    }
  };
  add(inference.inputs);
  add(inference.outputs);
  return bytes;
}

void AppendFrame(uint32_t tag, size_t size, std::string* out) {
  StringOutputStream stream(out);
  CodedOutputStream coded(&stream);
  coded.WriteTag(tag);
  coded.WriteVarint64(size);
}

OutgoingMessage EncodeInferRequest(const Inference& inference, const RequestFields& fields,
                                   Loan* loan) {
  OutgoingMessage message;
  std::string framing = SerializeEnvelope(inference, fields);
  for (const Inference::Input& input : inference.inputs) {
    if (input.part) continue;
    AppendFrame(kRawInputTag, input.bytes.size(), &framing);
    if (input.bytes.empty()) continue;
    message.Append(grpc::Slice(framing));
    message.Append(loan->Lend(input.bytes));
    framing.clear();
  }
  if (!framing.empty()) message.Append(grpc::Slice(framing));
  return message;
}

absl::StatusOr<std::string> DecodeInferResponse(grpc::ByteBuffer response,
                                                const Inference& inference) {
  const auto nothing = [](CodedInputStream&, int) { return absl::OkStatus(); };
  return DecodeAfter(nothing, std::move(response), inference, /*id=*/"");
}

absl::StatusOr<std::string> DecodeStreamResponse(grpc::ByteBuffer response,
                                                 const Inference& inference, absl::string_view id) {
  const auto read_frame = [](CodedInputStream& in, int size) {
    uint32_t inner_size = 0;
    const bool is_only_field = in.ReadTag() == kStreamedResponseTag &&
                               in.ReadVarint32(&inner_size) &&
                               static_cast<int64_t>(inner_size) == size - in.CurrentPosition();
    return is_only_field ? absl::OkStatus() : absl::UnavailableError("no ModelInferResponse");
  };
  return DecodeAfter(read_frame, std::move(response), inference, id);
}

}  // namespace swiglu::client
