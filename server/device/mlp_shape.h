// SPDX-License-Identifier: Apache-2.0
//
// The shape of an MLP that an executor must be able to compute.
#pragma once

#include <cstdint>

namespace swiglu::server {

struct MlpShape {
  int64_t hidden = 0;        // H
  int64_t intermediate = 0;  // I
  int64_t max_tokens = 0;    // the most in a batch

  bool operator==(const MlpShape&) const = default;
};

}  // namespace swiglu::server
