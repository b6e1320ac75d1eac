// SPDX-License-Identifier: Apache-2.0
//
// Compares every tensor of a call with the reference input.
#include "client/infer_call.h"

#include <algorithm>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace swiglu::client {
namespace {

absl::Status CheckPart(absl::string_view name, const absl::optional<RegionPart>& part) {
  if (!part || (part->offset >= 0 && part->size_bytes >= 0 &&
                part->offset <= part->region_bytes - part->size_bytes)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", name, "' is not inside region '", part->region, "': ", part->size_bytes,
                   " bytes at offset ", part->offset, " of ", part->region_bytes));
}

absl::Status CheckDtypes(const InferCall& call) {
  const Dtype dtype = call.reference().tensor->dtype;
  for (const auto& [name, tensor] : call.inputs) {
    // An invalid dtype would lead to a model name that the server does not know.
    const absl::Status status = TensorBytes(name, tensor->dtype, {}).status();
    if (!status.ok()) return status;
  }
  for (const auto& [name, tensor] : call.inputs) {
    const bool is_taken = !call.is_mlp || tensor->dtype != Dtype::kFp32;
    if (tensor->dtype == dtype && is_taken) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("input '", name, "' is ", DatatypeName(tensor->dtype), "; '", call.model,
                     "' takes ", is_taken ? DatatypeName(dtype) : "FP16 or BF16"));
  }
  return absl::OkStatus();
}

// Only the server knows how long the rows of an MLP are.
absl::Status CheckRows(const InferCall& call) {
  const auto& [name, tensor] = call.reference();
  if (!call.is_mlp || (!tensor->shape.empty() && tensor->shape.back() != 0)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("last dimension of '", name, "' is ",
                                                 tensor->shape.empty() ? "missing" : "0", "; '",
                                                 call.model, "' takes its hidden size"));
}

absl::Status CheckShapes(const InferCall& call) {
  const auto& [reference, like] = call.reference();
  const absl::StatusOr<int64_t> needed = TensorBytes(reference, like->dtype, like->shape);
  if (!needed.ok()) return needed.status();
  const absl::Status status = CheckRows(call);
  if (!status.ok()) return status;
  for (const auto& [name, tensor] : call.inputs) {
    if (tensor->shape == like->shape) continue;
    return absl::InvalidArgumentError(absl::StrCat("shape of '", name, "' is ",
                                                   FormatShape(tensor->shape), "; '", reference,
                                                   "' has ", FormatShape(like->shape)));
  }
  for (const auto& [name, tensor] : call.inputs) {
    if (tensor->size_bytes() == *needed) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "input '", name, "' has ", tensor->size_bytes(), " bytes; shape ", FormatShape(like->shape),
        " of ", DatatypeName(like->dtype), " needs ", *needed));
  }
  return absl::OkStatus();
}

// The rows of H elements that `size_bytes` of FP32 have.
int64_t NumRows(const InferCall& call, int64_t size_bytes) {
  return size_bytes / ElementBytes(Dtype::kFp32) / call.reference().tensor->shape.back();
}

// Only the server knows the intermediate size, so the matrices are compared with the last one.
absl::Status CheckMatrix(const InferCall& call, absl::string_view name, int64_t size_bytes) {
  const int64_t hidden = call.reference().tensor->shape.back();
  const InferCall::Output& last = call.outputs.back();
  const bool has_elements = size_bytes > 0 && size_bytes % ElementBytes(Dtype::kFp32) == 0;
  if (!has_elements || size_bytes / ElementBytes(Dtype::kFp32) % hidden != 0) {
    return absl::InvalidArgumentError(absl::StrCat("output '", name, "' has ", size_bytes,
                                                   " bytes; it takes FP32 rows of ", hidden,
                                                   " elements"));
  }
  if (size_bytes == last.tensor->size_bytes()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("output '", name, "' has ", size_bytes,
                                                 " bytes; '", last.name, "' has ",
                                                 last.tensor->size_bytes()));
}

// A tensor as the codec has it. What has no bytes needs no region.
template <typename Coded, typename Tensor>
Coded Code(absl::string_view name, const Tensor& tensor) {
  Coded coded{name, tensor.bytes};
  if (tensor.size_bytes() > 0) coded.part = tensor.part;
  return coded;
}

}  // namespace

InferCall ElementwiseCall(absl::string_view op, std::vector<InferCall::Input> inputs,
                          std::vector<InferCall::Output> outputs) {
  const size_t gate = inputs.size() - 2;
  const absl::string_view dtype = DatatypeName(inputs[gate].tensor->dtype);
  return {.model = absl::StrCat("swiglu_", op, "_", absl::AsciiStrToLower(dtype)),
          .reference_input = gate,
          .inputs = std::move(inputs),
          .outputs = std::move(outputs)};
}

absl::Status CheckInputs(const InferCall& call) {
  absl::Status status = CheckDtypes(call);
  if (status.ok()) status = CheckShapes(call);
  for (const auto& [name, tensor] : call.inputs) {
    if (status.ok()) status = CheckPart(name, tensor->part);
  }
  return status;
}

absl::Status CheckOutputs(const InferCall& call) {
  const InputTensor& like = *call.reference().tensor;
  for (const auto& [name, tensor, form] : call.outputs) {
    absl::Status status;
    if (form != OutputForm::kAsInputs) {
      status = CheckMatrix(call, name, tensor->size_bytes());
    } else if (tensor->size_bytes() != like.size_bytes()) {
      status =
          absl::InvalidArgumentError(absl::StrCat("output '", name, "' has ", tensor->size_bytes(),
                                                  " bytes; the inputs have ", like.size_bytes()));
    }
    if (status.ok()) status = CheckPart(name, tensor->part);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

bool UsesRegions(const InferCall& call) {
  const auto is_in_region = [](const auto& named) { return named.tensor->part.has_value(); };
  return std::any_of(call.inputs.begin(), call.inputs.end(), is_in_region) ||
         std::any_of(call.outputs.begin(), call.outputs.end(), is_in_region);
}

Inference ToInference(const InferCall& call) {
  const InputTensor& like = *call.reference().tensor;
  Inference inference{
      .model = call.model, .dtype = like.dtype, .shape = like.shape, .inputs = {}, .outputs = {}};
  if (call.is_mlp) inference.row_elements = like.shape.back();
  for (const auto& [name, tensor] : call.inputs) {
    inference.inputs.push_back(Code<Inference::Input>(name, *tensor));
  }
  for (const InferCall::Output& output : call.outputs) {
    inference.outputs.push_back(Code<Inference::Output>(output.name, *output.tensor));
    if (output.form == OutputForm::kAsInputs) continue;
    Shape shape = {NumRows(call, output.tensor->size_bytes()), like.shape.back()};
    if (output.form == OutputForm::kDownMatrix) std::swap(shape[0], shape[1]);
    inference.outputs.back().gradient_shape = std::move(shape);
  }
  return inference;
}

}  // namespace swiglu::client
