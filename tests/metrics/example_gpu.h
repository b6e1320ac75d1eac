// SPDX-License-Identifier: Apache-2.0
//
// A GPU that says everything, so that a page with it has every metric there is.
#pragma once

#include <functional>
#include <optional>
#include <utility>

#include "server/metrics/metrics_page.h"

namespace swiglu::server {

// Every figure, each with another value.
inline GpuFigures ExampleFigures() {
  return {.uuid = "GPU-01234567-89ab-cdef-0123-456789abcdef",
          .utilization_ratio = 0.5,
          .memory_used_bytes = 1e9,
          .memory_total_bytes = 8e10,
          .power_watts = 123.5,
          .power_limit_watts = 700,
          .temperature_celsius = 41,
          .throttling = ClockThrottling{.thermal = false, .power = true, .hardware = false},
          .energy_joules = 98765,
          .corrected_ecc_errors = 3,
          .uncorrected_ecc_errors = 2};
}

// Device 0 is that GPU; nothing else is set.
inline Gauges GaugesOfOneGpu(std::function<std::optional<GpuFigures>()> gpu = ExampleFigures) {
  Gauges gauges;
  gauges.slab_pool.memory = "pinned";
  gauges.devices.push_back({0, [] { return 0; }, std::move(gpu)});
  return gauges;
}

}  // namespace swiglu::server
