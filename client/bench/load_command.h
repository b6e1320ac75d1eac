// SPDX-License-Identifier: Apache-2.0
//
// Puts the load on the server, and prints what came of it.
#pragma once

#include "client/bench/command_line.h"
#include "client/cli/exit_code.h"

namespace swiglu::bench {

// Blocks until the load is over. kRefused only if every request failed. REQUIRES: the action is
// kLoad.
cli::Outcome RunLoad(const CommandLine& command);

}  // namespace swiglu::bench
