// SPDX-License-Identifier: Apache-2.0
//
// Sizes in bytes as people write them: `65536`, `64KiB`, `2GiB`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace swiglu::server {

// Reads a number of bytes: digits, optionally followed by KiB, MiB, GiB or TiB. Returns nullopt for
// any other text, and for more than 2^63 - 1 bytes.
std::optional<int64_t> ParseByteSize(absl::string_view text);

// The shortest text that `ParseByteSize` reads back as `bytes`.
std::string FormatByteSize(int64_t bytes);

}  // namespace swiglu::server
