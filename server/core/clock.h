// SPDX-License-Identifier: Apache-2.0
//
// The only clock that the data path uses.
#pragma once

#include <chrono>

namespace swiglu::server {

using Clock = std::chrono::steady_clock;

}  // namespace swiglu::server
