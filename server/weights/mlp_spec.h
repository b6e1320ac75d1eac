// SPDX-License-Identifier: Apache-2.0
//
// Which MLPs a user asks for: a name, the path of the weights, and the layers. Parses the texts in
// which users write this. Opens no file.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace swiglu::server {

// The longest name of an MLP, in bytes.
inline constexpr size_t kMaxMlpNameBytes = 64;
// The greatest number of a layer. The first layer has number 0.
inline constexpr int kMaxMlpLayer = 99'999;

// The layers from `begin` to `end - 1`. 0 <= begin < end <= kMaxMlpLayer + 1.
struct MlpLayerRange {
  int begin = 0;
  int end = 0;

  bool Holds(int layer) const { return begin <= layer && layer < end; }
};

struct MlpSpec {
  // Names of models are made of it. 1 to kMaxMlpNameBytes characters of a-z, 0-9 and _.
  std::string name;
  // A .safetensors file, or a folder. See MlpFiles::Open in "server/weights/mlp_files.h".
  std::string path;
  // The layers to use. All of these must be there. nullopt: every layer that is there.
  std::optional<MlpLayerRange> layers;
};

// The layers of the MLP of that name.
struct MlpLayersOf {
  std::string name;
  MlpLayerRange layers;
};

// Parses `NAME=PATH`. PATH is all after the first `=`. INVALID_ARGUMENT, with the text in the
// message, if NAME is no name or PATH is empty. Thread-safe.
absl::StatusOr<MlpSpec> ParseMlpSpec(absl::string_view text);

// Parses `NAME=a:b`, the layers from a to b - 1. INVALID_ARGUMENT, with the text in the message, if
// NAME is no name, or if a and b are no numbers with 0 <= a < b <= kMaxMlpLayer + 1. Thread-safe.
absl::StatusOr<MlpLayersOf> ParseMlpLayers(absl::string_view text);

// INVALID_ARGUMENT, with both names in the message, if the name of one of `mlps` would also be that
// of a model of another, whichever layers this other one has: `a_0_forward` beside `a`.
absl::Status CheckMlpNames(const std::vector<MlpSpec>& mlps);

}  // namespace swiglu::server
