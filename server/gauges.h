// SPDX-License-Identifier: Apache-2.0
//
// Makes the gauges of the metrics page from the parts of the server, the executor's memory, the
// GPUs and the MLPs.
#pragma once

#include "server/device/device_factory.h"
#include "server/gpu/gpu_monitor.h"
#include "server/metrics/metrics_page.h"
#include "server/server.h"
#include "server/weights/mlp_store.h"

namespace swiglu::server {

// Makes all gauges of the page. The gauges read the arguments, which must outlive the page.
Gauges GaugesOf(Server& server, const CreatedExecutor& executor, const GpuMonitor& gpus,
                const MlpStore& mlps);

}  // namespace swiglu::server
