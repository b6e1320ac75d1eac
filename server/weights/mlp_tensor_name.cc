// SPDX-License-Identifier: Apache-2.0
//
// Takes names apart, from the middle outwards. See the header.
#include "server/weights/mlp_tensor_name.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "server/weights/mlp_spec.h"

namespace swiglu::server {
namespace {

MlpPart PartOf(absl::string_view rest) {
  for (int k = 0; k < kNumMlpParts; ++k) {
    if (rest == kMlpPartNames[k]) return static_cast<MlpPart>(k);
  }
  const bool is_expert = absl::StartsWith(rest, "experts.") ||
                         absl::StartsWith(rest, "shared_expert.") ||
                         absl::StartsWith(rest, "shared_experts.");
  return is_expert ? MlpPart::kExpert : MlpPart::kOther;
}

// Whether `rest` is a projection of an MLP or something that belongs to one, such as its bias.
bool IsOfProjection(absl::string_view rest) {
  return std::any_of(std::begin(kMlpPartNames), std::end(kMlpPartNames),
                     [rest](absl::string_view part) {
                       return absl::StartsWith(rest, absl::StripSuffix(part, "weight"));
                     });
}

// The number that `digits` are, or kNoLayer if they are not allowed.
int LayerOf(absl::string_view digits) {
  int layer = 0;
  const bool is_allowed = (digits == "0" || digits.front() != '0') &&
                          absl::SimpleAtoi(digits, &layer) && layer <= kMaxMlpLayer;
  return is_allowed ? layer : MlpTensorName::kNoLayer;
}

}  // namespace

std::optional<MlpTensorName> ParseMlpTensorName(absl::string_view name) {
  constexpr absl::string_view kMlp = ".mlp.";
  const size_t end = name.find(kMlp);
  if (end == absl::string_view::npos) {
    if (!IsOfProjection(name)) return std::nullopt;
    return MlpTensorName{"", 0, PartOf(name)};
  }
  const absl::string_view head = name.substr(0, end);
  // npos + 1 is 0.
  const absl::string_view digits = head.substr(head.rfind('.') + 1);
  absl::string_view prefix = head.substr(0, head.size() - digits.size());
  const bool is_layer = !digits.empty() &&
                        std::all_of(digits.begin(), digits.end(), absl::ascii_isdigit) &&
                        absl::ConsumeSuffix(&prefix, "layers.") &&
                        (prefix.empty() || absl::EndsWith(prefix, "model."));
  if (!is_layer) return std::nullopt;
  const size_t stem_bytes = end + kMlp.size();
  return MlpTensorName{name.substr(0, stem_bytes), LayerOf(digits),
                       PartOf(name.substr(stem_bytes))};
}

}  // namespace swiglu::server
