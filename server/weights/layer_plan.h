// SPDX-License-Identifier: Apache-2.0
//
// Which tensors make up the MLPs of a model, decided by the names of its tensors alone. Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "server/weights/mlp_spec.h"

namespace swiglu::server {

// The names of the tensors of one layer's MLP.
struct PlannedLayer {
  int number = 0;
  bool is_fused = false;
  std::string gate;  // if fused, the tensor of gate and up
  std::string up;    // if fused, the same tensor
  std::string down;
};

// Finds the MLPs of the layers in `wanted` (of every layer if nullopt) among the tensors `names` of
// a model. Returns at least one layer, in ascending order of their numbers. Ignores tensors that
// belong to no MLP.
//
// INVALID_ARGUMENT, with a sentence that begins with `path`, if a wanted layer has no MLP, lacks a
// tensor, has tensors that an MLP must not have (such as biases), has both a fused tensor and
// separate ones, or is there under two prefixes; if the number of a layer has leading zeros or
// exceeds kMaxMlpLayer; if the model has no MLP, or only MLPs of experts. Thread-safe.
//
// REQUIRES: no two of `names` are the same.
absl::StatusOr<std::vector<PlannedLayer>> PlanLayers(absl::string_view path,
                                                     absl::Span<const absl::string_view> names,
                                                     std::optional<MlpLayerRange> wanted);

}  // namespace swiglu::server
