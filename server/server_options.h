// SPDX-License-Identifier: Apache-2.0
//
// From the flags of the command line to the options of the parts.
#pragma once

#include <cstdint>

#include "server/core/observer.h"
#include "server/device/device_factory.h"
#include "server/flags.h"
#include "server/server.h"

namespace swiglu::server {

// What the executor is asked for. It reports device errors to `observer`.
ExecutorOptions ExecutorOptionsOf(const Flags& flags, Observer* observer);

// What the server is asked for over an executor that computes on GPUs or does not.
// `max_connections` is what the limit of open files leaves of the flag's.
ServerOptions ServerOptionsOf(const Flags& flags, bool on_gpu, int64_t max_connections);

}  // namespace swiglu::server
