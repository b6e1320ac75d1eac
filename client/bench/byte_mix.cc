// SPDX-License-Identifier: Apache-2.0
//
// Byte sizes and mixes of them, from text and to text.
#include "client/bench/byte_mix.h"

#include <algorithm>
#include <cctype>
#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace swiglu::bench {
namespace {

struct Unit {
  absl::string_view suffix;
  int64_t bytes;
};

// The largest first.
constexpr Unit kUnits[] = {{"TiB", int64_t{1} << 40},
                           {"GiB", int64_t{1} << 30},
                           {"MiB", int64_t{1} << 20},
                           {"KiB", int64_t{1} << 10}};

bool IsDigits(absl::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(),
                                      [](unsigned char c) { return std::isdigit(c) != 0; });
}

absl::StatusOr<WeightedSize> ParseWeightedSize(absl::string_view text) {
  const size_t star = text.find('*');
  absl::StatusOr<int64_t> bytes = ParseBytes(text.substr(0, star));
  if (!bytes.ok()) return bytes.status();
  WeightedSize size{*bytes};
  if (star == absl::string_view::npos) return size;
  const absl::string_view weight = text.substr(star + 1);
  if (!IsDigits(weight) || !absl::SimpleAtoi(weight, &size.weight) || size.weight < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", weight, "' is no weight: 1 or more, as in 64KiB*9"));
  }
  return size;
}

std::vector<double> Weights(const std::vector<WeightedSize>& mix) {
  std::vector<double> weights;
  for (const WeightedSize& size : mix) weights.push_back(static_cast<double>(size.weight));
  return weights;
}

}  // namespace

absl::StatusOr<int64_t> ParseBytes(absl::string_view text) {
  absl::string_view digits = text;
  int64_t unit_bytes = 1;
  for (const Unit& unit : kUnits) {
    if (absl::ConsumeSuffix(&digits, unit.suffix)) {
      unit_bytes = unit.bytes;
      break;
    }
  }
  int64_t count = 0;
  if (!IsDigits(digits) || !absl::SimpleAtoi(digits, &count) ||
      count > std::numeric_limits<int64_t>::max() / unit_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is no size: bytes, as in 65536, 64KiB or 4MiB"));
  }
  return count * unit_bytes;
}

std::string FormatBytes(int64_t bytes) {
  for (const Unit& unit : kUnits) {
    if (bytes > 0 && bytes % unit.bytes == 0) return absl::StrCat(bytes / unit.bytes, unit.suffix);
  }
  return absl::StrCat(bytes);
}

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
    absl::StrAppend(out, FormatBytes(size.bytes));
    if (size.weight != 1) absl::StrAppend(out, "*", size.weight);
  });
}

SizePicker::SizePicker(const std::vector<WeightedSize>& mix, uint32_t seed) : random_(seed + 1) {
  const std::vector<double> weights = Weights(mix);
  sizes_ = std::discrete_distribution<size_t>(weights.begin(), weights.end());
}

size_t SizePicker::Pick() { return sizes_(random_); }

}  // namespace swiglu::bench
