// SPDX-License-Identifier: Apache-2.0
//
// The models of an invented MLP, which nothing computes: they show what the server does with models
// that have rows, share a series, and come by the hundred.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "server/core/model.h"

namespace swiglu::server {

// Forward and backward of each layer in BF16, layer by layer: `mlp_NAME_0_forward` and so on.
inline std::vector<Model> MlpModels(const std::string& name, int num_layers, int64_t row_elements) {
  std::vector<Model> models;
  for (int layer = 0; layer < num_layers; ++layer) {
    for (const Op op : {Op::kMlpForward, Op::kMlpBackward}) {
      models.push_back(MakeMlpModel(
          {.op = op, .mlp = name, .layer = layer, .hidden = row_elements, .intermediate = 1536}));
    }
  }
  return models;
}

}  // namespace swiglu::server
