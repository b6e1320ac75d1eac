// SPDX-License-Identifier: Apache-2.0
//
// The one clock of the data path.
#pragma once

#include <chrono>

namespace swiglu::server {

using Clock = std::chrono::steady_clock;

}  // namespace swiglu::server
