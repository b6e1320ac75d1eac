// SPDX-License-Identifier: Apache-2.0
//
// How many files this process may have open.
#pragma once

#include <cstdint>

namespace swiglu::server {

// The limit on open descriptors before and after `RaiseDescriptorLimit`.
struct DescriptorLimit {
  int64_t before = 0;
  int64_t now = 0;
};

// Raises this process's soft limit to its hard limit. If the system refuses, the limit stays.
DescriptorLimit RaiseDescriptorLimit();

// How many connections may be open at once: `wanted`, but at most `descriptors` minus the number of
// descriptors that the process itself needs. At least 1. A pure function.
int64_t ConnectionLimit(int64_t wanted, int64_t descriptors);

}  // namespace swiglu::server
