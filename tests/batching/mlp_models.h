// SPDX-License-Identifier: Apache-2.0
//
// The models of an invented MLP, which nothing computes: they show what the server does with models
// that have rows, share a series, and come by the hundred.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/core/model.h"

namespace swiglu::server {

// Forward and backward of each layer in BF16, layer by layer: `mlp_NAME_0_forward` and so on.
inline std::vector<Model> MlpModels(absl::string_view name, int num_layers, int64_t row_elements) {
  static constexpr absl::string_view kInputs[] = {"x", "dy"};
  static constexpr absl::string_view kForwardOutputs[] = {"y"};
  static constexpr absl::string_view kBackwardOutputs[] = {"dx"};
  std::vector<Model> models;
  for (int layer = 0; layer < num_layers; ++layer) {
    Model model{.op = Op::kMlpForward,
                .dtype = Dtype::kBf16,
                .name = absl::StrCat("mlp_", name, "_", layer, "_forward"),
                .series = absl::StrCat("mlp_", name),
                .inputs = absl::MakeSpan(kInputs).subspan(0, 1),
                .outputs = kForwardOutputs,
                .row_elements = row_elements,
                .shown_shape = {-1, row_elements},
                .platform = "swiglu_mlp",
                .properties = {{"layer", absl::StrCat(layer)}}};
    models.push_back(model);
    model.op = Op::kMlpBackward;
    model.name = absl::StrCat("mlp_", name, "_", layer, "_backward");
    model.inputs = kInputs;
    model.outputs = kBackwardOutputs;
    models.push_back(model);
  }
  return models;
}

}  // namespace swiglu::server
