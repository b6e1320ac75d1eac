// SPDX-License-Identifier: Apache-2.0
//
// Turns the flags of the command line into the options of the parts.
#pragma once

#include <cstdint>
#include <vector>

#include "server/core/model.h"
#include "server/core/observer.h"
#include "server/device/device_factory.h"
#include "server/flags.h"
#include "server/server.h"
#include "server/weights/mlp_store.h"

namespace swiglu::server {

// The models of the MLPs, with the batches that the flags allow. `mlps` must outlive them.
std::vector<Model> MlpModelsOf(const MlpStore& mlps, const Flags& flags);

// The options for the executor, which computes `mlps` and reports device errors to `observer`.
ExecutorOptions ExecutorOptionsOf(const Flags& flags, const MlpStore& mlps, Observer* observer);

// The options for the server. `on_gpu`: whether the executor computes on GPUs. `max_connections`:
// the value of the flag, or less if the limit on open files allows fewer.
ServerOptions ServerOptionsOf(const Flags& flags, bool on_gpu, int64_t max_connections);

}  // namespace swiglu::server
