// SPDX-License-Identifier: Apache-2.0
//
// Compares every tensor of a call with the reference input.
#include "client/infer_call.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace swiglu::client {
namespace {

absl::Status CheckPart(absl::string_view name, const RegionPart* part) {
  if (part == nullptr || (part->offset >= 0 && part->size_bytes >= 0 &&
                          part->offset <= part->region_bytes - part->size_bytes)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", name, "' is not inside region '", part->region, "': ", part->size_bytes,
                   " bytes at offset ", part->offset, " of ", part->region_bytes));
}

absl::Status CheckDtypes(const InferCall& call) {
  const Dtype dtype = call.reference().dtype;
  for (const InferCall::Input& input : call.inputs) {
    // An invalid dtype would lead to a model name that the server does not know.
    const absl::Status status = TensorBytes(input.name, input.dtype, {}).status();
    if (!status.ok()) return status;
  }
  for (const InferCall::Input& input : call.inputs) {
    const bool is_taken = !call.is_mlp || input.dtype != Dtype::kFp32;
    if (input.dtype == dtype && is_taken) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("input '", input.name, "' is ", DatatypeName(input.dtype), "; '", call.model,
                     "' takes ", is_taken ? DatatypeName(dtype) : "FP16 or BF16"));
  }
  return absl::OkStatus();
}

// Only the server knows how long the rows of an MLP are.
absl::Status CheckRows(const InferCall& call) {
  const InferCall::Input& reference = call.reference();
  const Shape& shape = *reference.shape;
  if (!call.is_mlp || (!shape.empty() && shape.back() != 0)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("last dimension of '", reference.name, "' is ",
                                                 shape.empty() ? "missing" : "0", "; '", call.model,
                                                 "' takes its hidden size"));
}

absl::Status CheckShapes(const InferCall& call) {
  const InferCall::Input& like = call.reference();
  const absl::StatusOr<int64_t> needed = TensorBytes(like.name, like.dtype, *like.shape);
  if (!needed.ok()) return needed.status();
  const absl::Status status = CheckRows(call);
  if (!status.ok()) return status;
  for (const InferCall::Input& input : call.inputs) {
    if (*input.shape == *like.shape) continue;
    return absl::InvalidArgumentError(absl::StrCat("shape of '", input.name, "' is ",
                                                   FormatShape(*input.shape), "; '", like.name,
                                                   "' has ", FormatShape(*like.shape)));
  }
  for (const InferCall::Input& input : call.inputs) {
    if (input.size_bytes() == *needed) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "input '", input.name, "' has ", input.size_bytes(), " bytes; shape ",
        FormatShape(*like.shape), " of ", DatatypeName(like.dtype), " needs ", *needed));
  }
  return absl::OkStatus();
}

// The rows of H elements that `size_bytes` of FP32 have.
int64_t NumRows(const InferCall& call, int64_t size_bytes) {
  return size_bytes / ElementBytes(Dtype::kFp32) / call.reference().shape->back();
}

// Only the server knows the intermediate size, so the matrices are compared with the last one.
absl::Status CheckMatrix(const InferCall& call, absl::string_view name, int64_t size_bytes) {
  const int64_t hidden = call.reference().shape->back();
  const InferCall::Output& last = call.outputs.back();
  const bool has_elements = size_bytes > 0 && size_bytes % ElementBytes(Dtype::kFp32) == 0;
  if (!has_elements || size_bytes / ElementBytes(Dtype::kFp32) % hidden != 0) {
    return absl::InvalidArgumentError(absl::StrCat("output '", name, "' has ", size_bytes,
                                                   " bytes; it takes FP32 rows of ", hidden,
                                                   " elements"));
  }
  if (size_bytes == last.size_bytes()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "output '", name, "' has ", size_bytes, " bytes; '", last.name, "' has ", last.size_bytes()));
}

// A tensor as a connection has it. What has no bytes needs no region.
template <typename Coded, typename Tensor>
Coded Code(const Tensor& tensor) {
  Coded coded{tensor.name, tensor.bytes};
  if (tensor.part != nullptr && tensor.part->size_bytes > 0) coded.part = *tensor.part;
  return coded;
}

// The names of the element-wise models, by dtype.
constexpr std::array<absl::string_view, 3> kForwardModels = {
    "swiglu_forward_fp16", "swiglu_forward_bf16", "swiglu_forward_fp32"};
constexpr std::array<absl::string_view, 3> kBackwardModels = {
    "swiglu_backward_fp16", "swiglu_backward_bf16", "swiglu_backward_fp32"};

}  // namespace

InferCall ElementwiseCall(const InferCall::Inputs& inputs, const InferCall::Outputs& outputs) {
  const size_t gate = inputs.size() - 2;
  const auto& models = inputs.size() == 2 ? kForwardModels : kBackwardModels;
  const auto dtype = static_cast<size_t>(inputs[gate].dtype);
  // CheckInputs refuses any other dtype.
  return {.model = dtype < models.size() ? models[dtype] : "",
          .reference_input = gate,
          .inputs = inputs,
          .outputs = outputs};
}

absl::Status CheckInputs(const InferCall& call) {
  absl::Status status = CheckDtypes(call);
  if (status.ok()) status = CheckShapes(call);
  for (const InferCall::Input& input : call.inputs) {
    if (status.ok()) status = CheckPart(input.name, input.part);
  }
  return status;
}

absl::Status CheckOutputs(const InferCall& call) {
  const InferCall::Input& like = call.reference();
  for (const InferCall::Output& output : call.outputs) {
    absl::Status status;
    if (output.form != OutputForm::kAsInputs) {
      status = CheckMatrix(call, output.name, output.size_bytes());
    } else if (output.size_bytes() != like.size_bytes()) {
      status = absl::InvalidArgumentError(
          absl::StrCat("output '", output.name, "' has ", output.size_bytes(),
                       " bytes; the inputs have ", like.size_bytes()));
    }
    if (status.ok()) status = CheckPart(output.name, output.part);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

bool UsesRegions(const InferCall& call) {
  const auto is_in_region = [](const auto& tensor) { return tensor.part != nullptr; };
  return std::any_of(call.inputs.begin(), call.inputs.end(), is_in_region) ||
         std::any_of(call.outputs.begin(), call.outputs.end(), is_in_region);
}

int64_t TotalBytes(const InferCall& call) {
  int64_t total_bytes = 0;
  for (const InferCall::Input& input : call.inputs) total_bytes += input.size_bytes();
  for (const InferCall::Output& output : call.outputs) total_bytes += output.size_bytes();
  return total_bytes;
}

Inference ToInference(const InferCall& call) {
  const InferCall::Input& like = call.reference();
  Inference inference{
      .model = call.model, .dtype = like.dtype, .shape = *like.shape, .inputs = {}, .outputs = {}};
  if (call.is_mlp) inference.row_elements = like.shape->back();
  for (const InferCall::Input& input : call.inputs) {
    inference.inputs.push_back(Code<Inference::Input>(input));
  }
  for (const InferCall::Output& output : call.outputs) {
    inference.outputs.push_back(Code<Inference::Output>(output));
    if (output.form == OutputForm::kAsInputs) continue;
    Shape shape = {NumRows(call, output.size_bytes()), like.shape->back()};
    if (output.form == OutputForm::kDownMatrix) std::swap(shape[0], shape[1]);
    inference.outputs.back().gradient_shape = std::move(shape);
  }
  return inference;
}

}  // namespace swiglu::client
