// SPDX-License-Identifier: Apache-2.0
//
// Converts sizes from text and to text with one table of units.
#include "server/base/byte_size.h"

#include <algorithm>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace swiglu::server {
namespace {

struct Unit {
  const char* suffix;
  int64_t bytes;
};
// The largest first.
constexpr Unit kUnits[] = {{"TiB", int64_t{1} << 40},
                           {"GiB", int64_t{1} << 30},
                           {"MiB", int64_t{1} << 20},
                           {"KiB", int64_t{1} << 10}};

}  // namespace

std::optional<int64_t> ParseByteSize(absl::string_view text) {
  int64_t unit_bytes = 1;
  for (const Unit& unit : kUnits) {
    if (absl::ConsumeSuffix(&text, unit.suffix)) {
      unit_bytes = unit.bytes;
      break;
    }
  }
  int64_t count = 0;
  if (!std::all_of(text.begin(), text.end(), absl::ascii_isdigit) ||
      !absl::SimpleAtoi(text, &count) || count > std::numeric_limits<int64_t>::max() / unit_bytes) {
    return std::nullopt;
  }
  return count * unit_bytes;
}

std::string FormatByteSize(int64_t bytes) {
  for (const Unit& unit : kUnits) {
    if (bytes > 0 && bytes % unit.bytes == 0) return absl::StrCat(bytes / unit.bytes, unit.suffix);
  }
  return absl::StrCat(bytes);
}

}  // namespace swiglu::server
