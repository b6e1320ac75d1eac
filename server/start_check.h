// SPDX-License-Identifier: Apache-2.0
//
// Whether the system has what a server needs to start. Libraries end the process if they get no
// descriptor, thread or memory. This check finds that out first, and says what is missing. Part of
// the program.
#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace swiglu::server {

// What a server takes while it serves, in addition to what the process already has.
struct StartNeeds {
  int descriptors = 0;
  int threads = 0;
  // Address space, not counting the threads' stacks.
  int64_t address_space_bytes = 0;
};

// What a server needs. `cores` is the number of cores of the machine; the number of gRPC's threads
// depends on it.
StartNeeds NeedsOfServer(int io_threads, int lanes_per_device, int cores,
                         int64_t memory_budget_bytes);

// Takes all of it for a moment and gives it back. OK, or RESOURCE_EXHAUSTED with what is missing,
// how much there is, and which limit may be the cause. It checks the address space only if that is
// limited. It opens descriptors and starts threads, and all of them are gone when it returns.
absl::Status CheckStart(const StartNeeds& needs);

}  // namespace swiglu::server
