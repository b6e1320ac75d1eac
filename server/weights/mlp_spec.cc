// SPDX-License-Identifier: Apache-2.0
//
// Splits the texts and checks their parts. See the header.
#include "server/weights/mlp_spec.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/base/shown_text.h"

namespace swiglu::server {
namespace {

// Error messages show at most this much of a text.
constexpr size_t kMaxShownSpecBytes = 200;

absl::Status BadSpec(absl::string_view text, absl::string_view wanted) {
  return absl::InvalidArgumentError(absl::StrCat(
      "'", ShownText({text.data(), text.size()}, kMaxShownSpecBytes), "': want ", wanted));
}

bool IsName(absl::string_view name) {
  return !name.empty() && name.size() <= kMaxMlpNameBytes &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '_';
         });
}

// The number of a layer, or one more than the greatest. nullopt if `text` is none.
std::optional<int> ParseBound(absl::string_view text) {
  int number = 0;
  const bool is_number = std::all_of(text.begin(), text.end(), absl::ascii_isdigit) &&
                         absl::SimpleAtoi(text, &number) && number <= kMaxMlpLayer + 1;
  return is_number ? std::optional<int>(number) : std::nullopt;
}

std::optional<MlpLayerRange> ParseRange(absl::string_view text) {
  const size_t colon = text.find(':');
  if (colon == absl::string_view::npos) return std::nullopt;
  const std::optional<int> begin = ParseBound(text.substr(0, colon));
  const std::optional<int> end = ParseBound(text.substr(colon + 1));
  if (!begin || !end || *begin >= *end) return std::nullopt;
  return MlpLayerRange{*begin, *end};
}

// Splits `text` after its name. `form` is what the whole text should look like.
absl::StatusOr<std::pair<std::string, absl::string_view>> SplitName(absl::string_view text,
                                                                    absl::string_view form) {
  const size_t equals = text.find('=');
  if (equals == absl::string_view::npos) return BadSpec(text, form);
  const absl::string_view name = text.substr(0, equals);
  if (!IsName(name)) {
    return BadSpec(text, absl::StrCat("a name of 1 to ", kMaxMlpNameBytes,
                                      " characters a-z, 0-9 and _ before the '='"));
  }
  return std::make_pair(std::string(name), text.substr(equals + 1));
}

// Whether `name` is `mlp` with what follows it in the name of a model: `_0_forward`.
bool IsModelOf(absl::string_view mlp, absl::string_view name) {
  if (!absl::ConsumePrefix(&name, mlp) || !absl::ConsumePrefix(&name, "_")) return false;
  if (!absl::ConsumeSuffix(&name, "_forward") && !absl::ConsumeSuffix(&name, "_backward")) {
    return false;
  }
  const std::optional<int> layer = ParseBound(name);
  // Models have the number without zeros before it.
  return layer.has_value() && absl::StrCat(*layer) == name;
}

}  // namespace

absl::StatusOr<MlpSpec> ParseMlpSpec(absl::string_view text) {
  auto split = SplitName(text, "NAME=PATH");
  if (!split.ok()) return split.status();
  if (split->second.empty()) return BadSpec(text, "a path after the '='");
  return MlpSpec{std::move(split->first), std::string(split->second), std::nullopt};
}

absl::StatusOr<MlpLayersOf> ParseMlpLayers(absl::string_view text) {
  auto split = SplitName(text, "NAME=a:b");
  if (!split.ok()) return split.status();
  const std::optional<MlpLayerRange> layers = ParseRange(split->second);
  if (!layers) {
    return BadSpec(text, absl::StrCat("a:b after the '=', with 0 <= a < b <= ", kMaxMlpLayer + 1));
  }
  return MlpLayersOf{std::move(split->first), *layers};
}

absl::Status CheckMlpNames(const std::vector<MlpSpec>& mlps) {
  for (const MlpSpec& mlp : mlps) {
    for (const MlpSpec& other : mlps) {
      if (!IsModelOf(other.name, mlp.name)) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("the MLP '", mlp.name, "' would have the name of a model of the MLP '",
                       other.name, "'; give one of them another name"));
    }
  }
  return absl::OkStatus();
}

}  // namespace swiglu::server
