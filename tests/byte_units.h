// SPDX-License-Identifier: Apache-2.0
//
// Units of bytes, for the tests of the server.
#pragma once

#include <cstdint>

namespace swiglu::server {

inline constexpr int64_t kKiB = int64_t{1} << 10;
inline constexpr int64_t kMiB = int64_t{1} << 20;

}  // namespace swiglu::server
