// SPDX-License-Identifier: Apache-2.0
//
// Reads a file of settings: lines `name = value`. It does not know which flags exist.
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

// The largest size of a file of settings.
inline constexpr int64_t kMaxSettingsBytes = int64_t{1} << 20;

// Reads lines `name = value` in their order. Ignores spaces around a name and around a value. A
// value in single or double quotes keeps its spaces. Outside quotes, a `#` at the beginning of a
// line or after a space begins a comment. Ignores empty lines. Returns INVALID_ARGUMENT if it
// cannot read the file, if the file is larger than kMaxSettingsBytes, or if it has any other line.
absl::StatusOr<std::vector<Setting>> ReadSettings(const std::string& path);

}  // namespace swiglu::server
