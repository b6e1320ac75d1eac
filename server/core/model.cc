// SPDX-License-Identifier: Apache-2.0
//
// The table of models and the names of operations and dtypes. Constant data only.
#include "server/core/model.h"

namespace swiglu::server {
namespace {

constexpr absl::string_view kForwardInputs[] = {"e", "g"};
constexpr absl::string_view kForwardOutputs[] = {"h"};
constexpr absl::string_view kBackwardInputs[] = {"DW", "e", "g"};
constexpr absl::string_view kBackwardOutputs[] = {"h", "df", "de"};

constexpr Model Forward(int index, Dtype dtype, absl::string_view name) {
  return {index, Op::kForward, dtype, name, kForwardInputs, kForwardOutputs};
}

constexpr Model Backward(int index, Dtype dtype, absl::string_view name) {
  return {index, Op::kBackward, dtype, name, kBackwardInputs, kBackwardOutputs};
}

constexpr Model kModels[kNumModels] = {
    Forward(0, Dtype::kFp16, "swiglu_forward_fp16"),
    Forward(1, Dtype::kBf16, "swiglu_forward_bf16"),
    Forward(2, Dtype::kFp32, "swiglu_forward_fp32"),
    Backward(3, Dtype::kFp16, "swiglu_backward_fp16"),
    Backward(4, Dtype::kBf16, "swiglu_backward_bf16"),
    Backward(5, Dtype::kFp32, "swiglu_backward_fp32"),
};

}  // namespace

absl::Span<const Model> Models() { return kModels; }

const Model* FindModel(absl::string_view name) {
  for (const Model& model : kModels) {
    if (model.name == name) return &model;
  }
  return nullptr;
}

const Model& GetModel(Op op, Dtype dtype) {
  return kModels[static_cast<int>(op) * kNumDtypes + static_cast<int>(dtype)];
}

int64_t BytesReadAndWritten(const Model& model, int64_t num_elements) {
  const auto num_tensors = static_cast<int64_t>(model.inputs.size() + model.outputs.size());
  return num_tensors * num_elements * ElementBytes(model.dtype);
}

absl::string_view DatatypeName(Dtype dtype) {
  constexpr absl::string_view kNames[] = {"FP16", "BF16", "FP32"};
  return kNames[static_cast<int>(dtype)];
}

absl::string_view OpLabel(Op op) { return op == Op::kForward ? "forward" : "backward"; }

absl::string_view DtypeLabel(Dtype dtype) {
  constexpr absl::string_view kLabels[] = {"fp16", "bf16", "fp32"};
  return kLabels[static_cast<int>(dtype)];
}

}  // namespace swiglu::server
