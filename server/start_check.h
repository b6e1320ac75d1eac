// SPDX-License-Identifier: Apache-2.0
//
// Checks that the system has what a server needs to start, and says what is missing. Without the
// check, a library would end the process for lack of a descriptor, thread or memory. Part of the
// program.
#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace swiglu::server {

// What a server needs while it serves, in addition to what the process already has.
struct StartNeeds {
  int descriptors = 0;
  int threads = 0;
  // Address space, not counting the threads' stacks.
  int64_t address_space_bytes = 0;
};

// The needs of a server. `cores` is the machine's number of cores, on which gRPC's number of
// threads depends.
StartNeeds NeedsOfServer(int io_threads, int lane_threads, int cores, int64_t memory_budget_bytes);

// Takes all of `needs` for a moment: descriptors, threads, and address space if that is limited.
// Gives everything back before it returns. Returns OK, or RESOURCE_EXHAUSTED, which says what is
// missing, how much there is, and which limit may be the cause.
absl::Status CheckStart(const StartNeeds& needs);

}  // namespace swiglu::server
