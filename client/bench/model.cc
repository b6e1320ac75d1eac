// SPDX-License-Identifier: Apache-2.0
//
// The table of models, and sums over their tensors.
#include "client/bench/model.h"

#include <algorithm>

namespace swiglu::bench {

using client::Dtype;

absl::Span<const Model> AllModels() {
  static const auto& models = *new std::vector<Model>{
      {"swiglu_forward_fp16", Dtype::kFp16, {"e", "g"}, {"h"}},
      {"swiglu_forward_bf16", Dtype::kBf16, {"e", "g"}, {"h"}},
      {"swiglu_forward_fp32", Dtype::kFp32, {"e", "g"}, {"h"}},
      {"swiglu_backward_fp16", Dtype::kFp16, {"DW", "e", "g"}, {"h", "df", "de"}},
      {"swiglu_backward_bf16", Dtype::kBf16, {"DW", "e", "g"}, {"h", "df", "de"}},
      {"swiglu_backward_fp32", Dtype::kFp32, {"DW", "e", "g"}, {"h", "df", "de"}}};
  return models;
}

const Model* FindModel(absl::string_view name) {
  const absl::Span<const Model> models = AllModels();
  const auto* found = std::find_if(models.begin(), models.end(),
                                   [name](const Model& model) { return model.name == name; });
  return found == models.end() ? nullptr : found;
}

int64_t NumElements(const Model& model, int64_t request_bytes) {
  return request_bytes / InputBytes(model, 1);
}

int64_t TensorBytes(const Model& model, int64_t num_elements) {
  return num_elements * client::ElementBytes(model.dtype);
}

int64_t InputBytes(const Model& model, int64_t num_elements) {
  return TensorBytes(model, num_elements) * static_cast<int64_t>(model.inputs.size());
}

int64_t OutputBytes(const Model& model, int64_t num_elements) {
  return TensorBytes(model, num_elements) * static_cast<int64_t>(model.outputs.size());
}

}  // namespace swiglu::bench
