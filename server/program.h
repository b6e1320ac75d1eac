// SPDX-License-Identifier: Apache-2.0
//
// The program swiglu-server, except the choice of its executor, which the caller passes in.
#pragma once

#include <functional>

#include "absl/status/statusor.h"
#include "server/device/device_factory.h"

namespace swiglu::server {

// Makes an executor, as `CreateExecutor` does.
using ExecutorFactory = std::function<absl::StatusOr<CreatedExecutor>(const ExecutorOptions&)>;

// Reads the command line and does what it says: serves until a signal comes, or asks a running
// server for its health. Returns the exit code. Once for each process.
int RunProgram(int argc, char** argv, const ExecutorFactory& create_executor);

}  // namespace swiglu::server
