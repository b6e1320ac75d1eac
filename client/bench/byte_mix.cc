// SPDX-License-Identifier: Apache-2.0
//
// Converts mixes of request sizes from text and to text.
#include "client/bench/byte_mix.h"

#include <algorithm>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "server/base/byte_size.h"

namespace swiglu::bench {
namespace {

absl::StatusOr<WeightedSize> ParseWeightedSize(absl::string_view text) {
  const size_t star = text.find('*');
  const absl::string_view bytes_text = text.substr(0, star);
  const std::optional<int64_t> bytes = server::ParseByteSize(bytes_text);
  if (!bytes.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", bytes_text, "' is no size: bytes, as in 65536, 64KiB or 4MiB"));
  }
  WeightedSize size{*bytes};
  if (star == absl::string_view::npos) return size;
  const absl::string_view weight = text.substr(star + 1);
  if (!std::all_of(weight.begin(), weight.end(), absl::ascii_isdigit) ||
      !absl::SimpleAtoi(weight, &size.weight) || size.weight < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", weight, "' is no weight: 1 or more, as in 64KiB*9"));
  }
  return size;
}

}  // namespace

absl::StatusOr<std::vector<WeightedSize>> ParseByteMix(absl::string_view text) {
  std::vector<WeightedSize> mix;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    absl::StatusOr<WeightedSize> size = ParseWeightedSize(part);
    if (!size.ok()) return size.status();
    mix.push_back(*size);
  }
  return mix;
}

std::string FormatByteMix(const std::vector<WeightedSize>& mix) {
  return absl::StrJoin(mix, ",", [](std::string* out, const WeightedSize& size) {
    absl::StrAppend(out, server::FormatByteSize(size.bytes));
    if (size.weight != 1) absl::StrAppend(out, "*", size.weight);
  });
}

SizePicker::SizePicker(const std::vector<WeightedSize>& mix, uint32_t seed) : random_(seed + 1) {
  std::vector<double> weights;
  for (const WeightedSize& size : mix) weights.push_back(static_cast<double>(size.weight));
  sizes_ = std::discrete_distribution<size_t>(weights.begin(), weights.end());
}

size_t SizePicker::Pick() { return sizes_(random_); }

}  // namespace swiglu::bench
