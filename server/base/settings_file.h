// SPDX-License-Identifier: Apache-2.0
//
// Reads a file of settings: lines `name = value`. Knows no flags.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace swiglu::server {

struct Setting {
  std::string name;
  std::string value;
};

// A file of settings is not larger.
inline constexpr int64_t kMaxSettingsBytes = int64_t{1} << 20;

// Reads lines `name = value` in their order. Spaces around a name and a value do not count. A value
// may be in quotes, single or double, and then keeps its spaces. A `#` at the beginning of a line,
// or behind a space, begins a comment; not within quotes. Empty lines do not count.
// INVALID_ARGUMENT if the file cannot be read, is larger than kMaxSettingsBytes, or has a line of
// another kind.
absl::StatusOr<std::vector<Setting>> ReadSettings(const std::string& path);

}  // namespace swiglu::server
