// SPDX-License-Identifier: Apache-2.0
//
// The program swiglu-server. Its caller passes in the function that makes the executor.
#pragma once

#include <functional>

#include "absl/status/statusor.h"
#include "server/device/device_factory.h"

namespace swiglu::server {

// Makes an executor, as `CreateExecutor` does.
using ExecutorFactory = std::function<absl::StatusOr<CreatedExecutor>(const ExecutorOptions&)>;

// Reads the command line and does what it says: serves until a signal arrives, or asks a running
// server for its health. Returns the exit code. Call it once per process.
int RunProgram(int argc, char** argv, const ExecutorFactory& create_executor);

}  // namespace swiglu::server
