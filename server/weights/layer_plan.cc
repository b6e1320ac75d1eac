// SPDX-License-Identifier: Apache-2.0
//
// Sorts the names by layer and by what comes before the part, then checks each wanted layer.
#include "server/weights/layer_plan.h"

#include <array>
#include <map>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/formats/safetensors.h"
#include "server/weights/mlp_tensor_name.h"

namespace swiglu::server {
namespace {

using Name = absl::string_view;

// Error messages show at most so many runs of consecutive layers.
constexpr size_t kMaxShownRuns = 8;

absl::Status Refused(absl::string_view path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
}

// The tensors of one layer whose names begin with the same stem. An empty name: there is none.
struct Candidate {
  std::array<Name, kNumMlpParts> parts;  // by MlpPart
  Name expert;                           // the first tensor of an expert
  Name other;                            // the first other tensor

  Name part(MlpPart wanted) const { return parts[static_cast<size_t>(wanted)]; }
  // The first tensor that shows that this is an MLP. Empty if nothing does.
  Name Evidence() const {
    for (const Name part : parts) {
      if (!part.empty()) return part;
    }
    return {};
  }
};

// What the names say of all layers.
struct Candidates {
  std::map<int, std::map<Name, Candidate>> layers;  // by number, then by stem
  std::map<int, Name> experts;                      // by number; the first tensor of an expert
  Name bad_number;                                  // the first tensor whose layer has no number
};

// Puts the tensor `name` into its place, if that is free.
void Add(Name name, const MlpTensorName& parsed, Candidates& found) {
  if (parsed.layer == MlpTensorName::kNoLayer) {
    if (found.bad_number.empty()) found.bad_number = name;
    return;
  }
  Candidate& candidate = found.layers[parsed.layer][parsed.stem];
  const auto part = static_cast<size_t>(parsed.part);
  const bool is_expert = parsed.part == MlpPart::kExpert;
  if (is_expert) found.experts.emplace(parsed.layer, name);
  Name& place = part < candidate.parts.size() ? candidate.parts[part]
                : is_expert                   ? candidate.expert
                                              : candidate.other;
  if (place.empty()) place = name;
}

Candidates SortNames(absl::Span<const Name> names) {
  Candidates found;
  for (const Name name : names) {
    const std::optional<MlpTensorName> parsed = ParseMlpTensorName(name);
    if (parsed) Add(name, *parsed, found);
  }
  // What has no projection is no MLP of this kind.
  for (auto layer = found.layers.begin(); layer != found.layers.end();) {
    std::erase_if(layer->second, [](const auto& each) { return each.second.Evidence().empty(); });
    layer = layer->second.empty() ? found.layers.erase(layer) : std::next(layer);
  }
  return found;
}

// The numbers of the layers, for example `0 to 3, 7`.
std::string ShownLayers(const std::map<int, std::map<Name, Candidate>>& layers) {
  std::vector<std::pair<int, int>> runs;  // the first and the last of consecutive numbers
  for (const auto& [number, candidates] : layers) {
    if (!runs.empty() && number == runs.back().second + 1) {
      runs.back().second = number;
    } else {
      runs.emplace_back(number, number);
    }
  }
  std::vector<std::string> shown;
  for (const auto& [first, last] : runs) {
    if (shown.size() == kMaxShownRuns) {
      shown.push_back("...");
      break;
    }
    shown.push_back(first == last ? absl::StrCat(first) : absl::StrCat(first, " to ", last));
  }
  return absl::StrJoin(shown, ", ");
}

absl::Status NoMlp(absl::string_view path, const Candidates& found) {
  if (found.experts.empty()) {
    return Refused(path,
                   "holds no MLP; expected tensors such as model.layers.0.mlp.gate_proj.weight or "
                   "gate_proj.weight");
  }
  return Refused(path, absl::StrCat("holds no MLP but those of experts, such as ",
                                    QuotedTensorName(found.experts.begin()->second),
                                    "; expected layers with one MLP each"));
}

absl::Status HasExperts(absl::string_view path, int number, Name expert) {
  return Refused(path,
                 absl::StrCat("layer ", number, " has experts, such as ", QuotedTensorName(expert),
                              "; expected layers with one MLP each"));
}

absl::Status NoLayer(absl::string_view path, const Candidates& found, int number) {
  const auto expert = found.experts.find(number);
  if (expert != found.experts.end()) return HasExperts(path, number, expert->second);
  return Refused(path, absl::StrCat("layer ", number, " has no MLP; those that have one are ",
                                    ShownLayers(found.layers)));
}

absl::Status NotAllowed(absl::string_view path, Name name) {
  const bool is_bias = absl::EndsWith(name, ".bias");
  return Refused(path, absl::StrCat("tensor ", QuotedTensorName(name),
                                    is_bias ? " is a bias" : " is no part of a SwiGLU MLP",
                                    "; expected only gate_proj.weight, up_proj.weight and "
                                    "down_proj.weight, or gate_up_proj.weight and "
                                    "down_proj.weight"));
}

absl::StatusOr<PlannedLayer> PlanLayer(absl::string_view path, int number, Name stem,
                                       const Candidate& candidate) {
  if (!candidate.expert.empty()) return HasExperts(path, number, candidate.expert);
  if (!candidate.other.empty()) return NotAllowed(path, candidate.other);
  const Name fused = candidate.part(MlpPart::kGateUp);
  const bool is_fused = !fused.empty();
  for (const MlpPart part : {MlpPart::kGate, MlpPart::kUp}) {
    const Name separate = candidate.part(part);
    if (is_fused && !separate.empty()) {
      return Refused(path,
                     absl::StrCat("layer ", number, " has both ", QuotedTensorName(fused), " and ",
                                  QuotedTensorName(separate), "; expected one or the other"));
    }
  }
  for (const MlpPart part : {MlpPart::kGate, MlpPart::kUp, MlpPart::kDown}) {
    if (!candidate.part(part).empty() || (is_fused && part != MlpPart::kDown)) continue;
    const std::string missing = absl::StrCat(stem, kMlpPartNames[static_cast<size_t>(part)]);
    return Refused(path,
                   absl::StrCat("layer ", number, " has ", QuotedTensorName(candidate.Evidence()),
                                " but no ", QuotedTensorName(missing)));
  }
  return PlannedLayer{number, is_fused,
                      std::string(is_fused ? fused : candidate.part(MlpPart::kGate)),
                      std::string(is_fused ? fused : candidate.part(MlpPart::kUp)),
                      std::string(candidate.part(MlpPart::kDown))};
}

// The first error in what the names say, not yet looking into the layers.
absl::Status CheckFound(absl::string_view path, const Candidates& found,
                        const std::optional<MlpLayerRange>& wanted) {
  if (!found.bad_number.empty()) {
    return Refused(path, absl::StrCat("tensor ", QuotedTensorName(found.bad_number),
                                      " has no number of a layer; expected 0 to ", kMaxMlpLayer,
                                      " without leading zeros"));
  }
  if (found.layers.empty()) return NoMlp(path, found);
  if (!wanted) return absl::OkStatus();
  for (int number = wanted->begin; number < wanted->end; ++number) {
    if (!found.layers.contains(number)) return NoLayer(path, found, number);
  }
  return absl::OkStatus();
}

absl::Status IsThereTwice(absl::string_view path, int number,
                          const std::map<Name, Candidate>& candidates) {
  const Name first = candidates.begin()->second.Evidence();
  const Name second = std::next(candidates.begin())->second.Evidence();
  return Refused(path, absl::StrCat("layer ", number, " is there twice, as ",
                                    QuotedTensorName(first), " and as ", QuotedTensorName(second),
                                    "; expected one MLP for each layer"));
}

}  // namespace

absl::StatusOr<std::vector<PlannedLayer>> PlanLayers(absl::string_view path,
                                                     absl::Span<const absl::string_view> names,
                                                     std::optional<MlpLayerRange> wanted) {
  const Candidates found = SortNames(names);
  absl::Status status = CheckFound(path, found, wanted);
  if (!status.ok()) return status;
  std::vector<PlannedLayer> planned;
  for (const auto& [number, candidates] : found.layers) {
    if (wanted && !wanted->Holds(number)) continue;
    if (candidates.size() > 1) return IsThereTwice(path, number, candidates);
    const auto& [stem, candidate] = *candidates.begin();
    absl::StatusOr<PlannedLayer> layer = PlanLayer(path, number, stem, candidate);
    if (!layer.ok()) return layer.status();
    planned.push_back(*std::move(layer));
  }
  return planned;
}

}  // namespace swiglu::server
