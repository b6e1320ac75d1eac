// SPDX-License-Identifier: Apache-2.0
//
// Serves the bare echo until a signal ends it.
#pragma once

#include "client/bench/command_line.h"
#include "client/cli/exit_code.h"

namespace swiglu::bench {

// Serves, prints the address on a line of its own, and blocks until SIGTERM or SIGINT. REQUIRES:
// the action is kServeEcho; no other thread runs yet.
cli::ProgramEnd ServeEcho(const CommandLine& command);

}  // namespace swiglu::bench
