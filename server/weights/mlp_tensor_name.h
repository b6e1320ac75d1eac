// SPDX-License-Identifier: Apache-2.0
//
// What the name of a tensor says about MLPs: which layer the tensor belongs to, and which part of
// the layer's MLP it is. Pure.
#pragma once

#include <optional>

#include "absl/strings/string_view.h"

namespace swiglu::server {

// What a tensor is in its MLP.
enum class MlpPart {
  kGate,    // gate_proj.weight
  kUp,      // up_proj.weight
  kGateUp,  // gate_up_proj.weight: the rows of the gate, then those of up
  kDown,    // down_proj.weight
  kExpert,  // a tensor of one of several experts
  kOther,   // for example a bias
};

// The names of the parts that are a weight, by MlpPart.
inline constexpr absl::string_view kMlpPartNames[] = {"gate_proj.weight", "up_proj.weight",
                                                      "gate_up_proj.weight", "down_proj.weight"};
inline constexpr int kNumMlpParts = 4;

// Borrows the name that it was parsed from.
struct MlpTensorName {
  absl::string_view stem;  // the name before the part, for example `model.layers.3.mlp.`
  int layer = 0;           // kNoLayer: the name has a number of a layer that is not allowed
  MlpPart part = MlpPart::kOther;

  static constexpr int kNoLayer = -1;
};

// Two forms of names belong to an MLP. `[PREFIX]layers.N.mlp.PART` is of layer N, where PREFIX is
// empty or ends with `model.`, and N is a number up to kMaxMlpLayer ("server/weights/mlp_spec.h")
// without leading zeros. A bare PART that begins with gate_proj, up_proj, gate_up_proj or down_proj
// is of layer 0. nullopt for any other name. Thread-safe.
std::optional<MlpTensorName> ParseMlpTensorName(absl::string_view name);

}  // namespace swiglu::server
