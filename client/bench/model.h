// SPDX-License-Identifier: Apache-2.0
//
// The models as a load needs them: the tensors of a request and of its answer. Six of them are in
// every server; mlp_model.h makes those of MLPs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "swiglu/tensor.h"

namespace swiglu::bench {

struct Model {
  const std::string& name() const { return names.front(); }
  bool is_mlp() const { return row_elements > 0; }

  // What requests name, in turn: one model, or those of several layers of an MLP.
  std::vector<std::string> names;
  client::Dtype dtype = client::Dtype::kFp32;
  std::vector<absl::string_view> inputs = {};
  std::vector<absl::string_view> outputs = {};
  // Of an MLP: its name, the first layer, and the hidden size. 0 elements: it is no MLP.
  std::string mlp = "";
  int first_layer = 0;
  int64_t row_elements = 0;
};

// The six models of every server. They live for ever.
inline absl::Span<const Model> AllModels() {
  static const auto& models = *new std::vector<Model>{
      {{"swiglu_forward_fp16"}, client::Dtype::kFp16, {"e", "g"}, {"h"}},
      {{"swiglu_forward_bf16"}, client::Dtype::kBf16, {"e", "g"}, {"h"}},
      {{"swiglu_forward_fp32"}, client::Dtype::kFp32, {"e", "g"}, {"h"}},
      {{"swiglu_backward_fp16"}, client::Dtype::kFp16, {"DW", "e", "g"}, {"h", "df", "de"}},
      {{"swiglu_backward_bf16"}, client::Dtype::kBf16, {"DW", "e", "g"}, {"h", "df", "de"}},
      {{"swiglu_backward_fp32"}, client::Dtype::kFp32, {"DW", "e", "g"}, {"h", "df", "de"}}};
  return models;
}

// The one of that name, or nullptr.
inline const Model* FindModel(absl::string_view name) {
  const absl::Span<const Model> models = AllModels();
  const auto* found = std::find_if(models.begin(), models.end(),
                                   [name](const Model& model) { return model.name() == name; });
  return found == models.end() ? nullptr : found;
}

// The bytes of one tensor, of all inputs of a request, and of all outputs of an answer.
inline int64_t TensorBytes(const Model& model, int64_t num_elements) {
  return num_elements * client::ElementBytes(model.dtype);
}
inline int64_t InputBytes(const Model& model, int64_t num_elements) {
  return TensorBytes(model, num_elements) * static_cast<int64_t>(model.inputs.size());
}
inline int64_t OutputBytes(const Model& model, int64_t num_elements) {
  return TensorBytes(model, num_elements) * static_cast<int64_t>(model.outputs.size());
}

// Elements of each tensor of a request whose inputs have `request_bytes` in all, rounded down.
inline int64_t NumElements(const Model& model, int64_t request_bytes) {
  return request_bytes / InputBytes(model, 1);
}

// The shape of a tensor of so many elements: rank 1, or the rows of an MLP.
inline client::Shape ShapeOf(const Model& model, int64_t num_elements) {
  if (!model.is_mlp()) return {num_elements};
  return {num_elements / model.row_elements, model.row_elements};
}

}  // namespace swiglu::bench
