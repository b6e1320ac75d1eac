// SPDX-License-Identifier: Apache-2.0
//
// Sizes in bytes as people write them: `65536`, `64KiB`, `2GiB`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace swiglu::server {

// Reads a number of bytes: digits, perhaps with KiB, MiB, GiB or TiB behind them. nullopt for
// anything else, or past 2^63 - 1.
std::optional<int64_t> ParseByteSize(absl::string_view text);

// The shortest text that `ParseByteSize` reads back as `bytes`.
std::string FormatByteSize(int64_t bytes);

}  // namespace swiglu::server
