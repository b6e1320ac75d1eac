// SPDX-License-Identifier: Apache-2.0
//
// Whether the system has what a server needs to start. Libraries end the process if they get no
// descriptor, thread or memory. This check finds that out first, and says what is missing. Part of
// the program.
#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace swiglu::server {

// What a server has while it serves, beyond what the process has already.
struct StartNeeds {
  int descriptors = 0;
  int threads = 0;
  // Address space, not counting the threads' stacks.
  int64_t address_space_bytes = 0;
};

// What a server needs. `cores`: the machine's. gRPC chooses by it how many threads it starts.
StartNeeds NeedsOfServer(int io_threads, int lanes_per_device, int cores,
                         int64_t memory_budget_bytes);

// Takes all of it for a moment and gives it back. OK, or RESOURCE_EXHAUSTED with what is missing,
// how much there is, and which limit may be the cause. Address space is looked at only where it is
// limited. Opens descriptors, and starts threads that have ended when it returns.
absl::Status CheckStart(const StartNeeds& needs);

}  // namespace swiglu::server
