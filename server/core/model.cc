// SPDX-License-Identifier: Apache-2.0
//
// The table of the six models, how a model of an MLP looks, and the names of operations and dtypes.
#include "server/core/model.h"

#include <numeric>

#include "absl/strings/str_cat.h"
#include "server/core/slab.h"
#include "server/log/log.h"

namespace swiglu::server {
namespace {

constexpr absl::string_view kForwardInputs[] = {"e", "g"};
constexpr absl::string_view kForwardOutputs[] = {"h"};
constexpr absl::string_view kBackwardInputs[] = {"DW", "e", "g"};
constexpr absl::string_view kBackwardOutputs[] = {"h", "df", "de"};

constexpr absl::string_view kMlpForwardInputs[] = {"x"};
constexpr absl::string_view kMlpForwardOutputs[] = {"y"};
constexpr absl::string_view kMlpBackwardInputs[] = {"x", "dy"};
constexpr absl::string_view kMlpBackwardOutputs[] = {"dx"};

constexpr char kPlatform[] = "swiglu";

Model Forward(int index, Dtype dtype, const char* name) {
  return {.index = index,
          .op = Op::kForward,
          .dtype = dtype,
          .name = name,
          .series = name,
          .inputs = kForwardInputs,
          .outputs = kForwardOutputs,
          // As many dimensions as the tensors of the source kernel have, each of any size.
          .shown_shape = {-1, -1, -1},
          .platform = kPlatform};
}

Model Backward(int index, Dtype dtype, const char* name) {
  return {.index = index,
          .op = Op::kBackward,
          .dtype = dtype,
          .name = name,
          .series = name,
          .inputs = kBackwardInputs,
          .outputs = kBackwardOutputs,
          .shown_shape = {-1, -1},
          .platform = kPlatform};
}

}  // namespace

absl::Span<const Model> Models() {
  // Never deleted: threads may use the models until the process ends.
  static const auto* const kModels = new std::vector<Model>{
      Forward(0, Dtype::kFp16, "swiglu_forward_fp16"),
      Forward(1, Dtype::kBf16, "swiglu_forward_bf16"),
      Forward(2, Dtype::kFp32, "swiglu_forward_fp32"),
      Backward(3, Dtype::kFp16, "swiglu_backward_fp16"),
      Backward(4, Dtype::kBf16, "swiglu_backward_bf16"),
      Backward(5, Dtype::kFp32, "swiglu_backward_fp32"),
  };
  return *kModels;
}

const Model* FindModel(absl::string_view name) {
  for (const Model& model : Models()) {
    if (model.name == name) return &model;
  }
  return nullptr;
}

const Model& GetModel(Op op, Dtype dtype) {
  CHECK(IsElementwise(op));
  return Models()[static_cast<size_t>(op) * kNumDtypes + static_cast<size_t>(dtype)];
}

std::string MlpSeries(absl::string_view mlp) { return absl::StrCat("mlp_", mlp); }

Model MakeMlpModel(const MlpModelOptions& options) {
  const bool is_forward = options.op == Op::kMlpForward;
  CHECK(is_forward || options.op == Op::kMlpBackward);
  Model model{.op = options.op,
              .dtype = options.dtype,
              .name = absl::StrCat("mlp_", options.mlp, "_", options.layer,
                                   is_forward ? "_forward" : "_backward"),
              .series = MlpSeries(options.mlp),
              .row_elements = options.hidden,
              .shown_shape = {-1, options.hidden},
              .platform = "swiglu_mlp",
              .properties = {{"layer", absl::StrCat(options.layer)},
                             {"intermediate_size", absl::StrCat(options.intermediate)}},
              .weights = options.weights,
              .max_batch_rows = options.max_batch_rows};
  if (is_forward) {
    model.inputs = kMlpForwardInputs;
    model.outputs = kMlpForwardOutputs;
  } else {
    model.inputs = kMlpBackwardInputs;
    model.outputs = kMlpBackwardOutputs;
    model.gradients = {{"d_gate_proj", {options.intermediate, options.hidden}},
                       {"d_up_proj", {options.intermediate, options.hidden}},
                       {"d_down_proj", {options.hidden, options.intermediate}}};
  }
  return model;
}

int64_t MaxBatchBytes(const Model& model, int64_t executor_bytes) {
  if (model.max_batch_rows == 0) return executor_bytes;
  return model.max_batch_rows * model.row_elements * ElementBytes(model.dtype) *
         static_cast<int64_t>(model.inputs.size());
}

int64_t GradientRows(const Model& model) {
  constexpr int64_t kStep = 16;
  return std::max(model.max_batch_rows / kStep, int64_t{1}) * kStep;
}

int64_t MostBatchRows(const Model& model) {
  return std::max({model.max_batch_rows, CutElements(model) / model.row_elements,
                   model.gradients.empty() ? 0 : GradientRows(model)});
}

int64_t BytesReadAndWritten(const Model& model, int64_t num_elements) {
  const auto num_tensors = static_cast<int64_t>(model.inputs.size() + model.outputs.size());
  return num_tensors * num_elements * ElementBytes(model.dtype);
}

int64_t CutElements(const Model& model) {
  const int64_t aligned_elements = static_cast<int64_t>(kSlabAlignment) / ElementBytes(model.dtype);
  return std::lcm(aligned_elements, model.row_elements);
}

absl::string_view DatatypeName(Dtype dtype) {
  constexpr absl::string_view kNames[] = {"FP16", "BF16", "FP32"};
  return kNames[static_cast<int>(dtype)];
}

absl::string_view OpLabel(Op op) {
  constexpr absl::string_view kLabels[] = {"forward", "backward", "mlp_forward", "mlp_backward"};
  return kLabels[static_cast<int>(op)];
}

absl::string_view DtypeLabel(Dtype dtype) {
  constexpr absl::string_view kLabels[] = {"fp16", "bf16", "fp32"};
  return kLabels[static_cast<int>(dtype)];
}

}  // namespace swiglu::server
