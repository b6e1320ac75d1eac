// SPDX-License-Identifier: Apache-2.0
//
// An MLP whose weights are being replaced, and the gauges of a server that has it, so that a page
// of them has every metric there is.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "server/core/model_registry.h"
#include "server/metrics/metrics_page.h"
#include "tests/batching/mlp_models.h"
#include "tests/metrics/example_gpu.h"

namespace swiglu::server {

// The value of the label `model` is `mlp_NAME`, as on the pages about metrics.
inline std::vector<Model> ExampleMlpModels() { return MlpModels("NAME", 2, 64); }

// Every figure, each with another value.
inline MlpFigures ExampleMlpFigures() {
  return {.loads = {.is_loading = true,
                    .loaded_bytes = 30'000,
                    .num_ended = {4, 2, 3},
                    .last_success = absl::FromUnixMillis(1'700'000'000'250),
                    .last_duration = std::chrono::milliseconds(1500)},
          .size_bytes = 40'000,
          .places = {{0, 41'000}, {1, 41'000}, {0, 43'000}}};
}

// The gauges of a server that has GPU 0 and the MLP.
inline Gauges GaugesOfOneGpuAndMlp(std::function<std::optional<GpuFigures>()> gpu = ExampleFigures,
                                   std::function<MlpFigures()> mlp = ExampleMlpFigures) {
  Gauges gauges = GaugesOfOneGpu(std::move(gpu));
  gauges.mlps.push_back({"mlp_NAME", std::move(mlp)});
  return gauges;
}

}  // namespace swiglu::server
