// SPDX-License-Identifier: Apache-2.0
//
// When a caller may try a failed call again. Pure.
#pragma once

#include "absl/status/status.h"

namespace swiglu::server::errors {

// How long a caller is advised to wait before it tries again.
inline constexpr int kRetryPushbackMs = 100;

// Whether a call that ends with `status` may succeed if it is repeated later.
inline bool IsRetryable(const absl::Status& status) { return absl::IsUnavailable(status); }

}  // namespace swiglu::server::errors
