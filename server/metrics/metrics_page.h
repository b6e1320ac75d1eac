// SPDX-License-Identifier: Apache-2.0
//
// The text of the /metrics page. It shows the observer's counts, and values that are looked up when
// the page is read.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "server/core/gpu_figures.h"
#include "server/core/mlp_figures.h"
#include "server/metrics/names.h"
#include "server/metrics/prometheus_observer.h"

namespace swiglu::server {

// The functions that return the values of the gauges. Each function is called whenever the page is
// read, from any thread, and must not block for long. If a function is empty, its gauge is 0.
struct Gauges {
  using Sample = std::function<double()>;

  struct Device {
    int device = kCpuDevice;  // a CUDA ordinal or kCpuDevice
    // Returns nullopt while the value is unknown. Empty if it is always unknown.
    std::function<std::optional<double>()> memory_used_bytes;
    // A GPU's figures, or nullopt if there are none now. Empty for the CPU.
    std::function<std::optional<GpuFigures>()> gpu = {};
  };

  struct Mlp {
    std::string model;  // the label `model`: `mlp_NAME`
    std::function<MlpFigures()> figures;
  };

  struct SlabPool {
    std::string memory;  // the label `pool`: "host" or "pinned"
    // By state: used, free.
    std::array<Sample, metrics::kSlabStates.size()> bytes;
  };

  Sample queued_requests;
  Sample queue_limit_requests;
  Sample inflight_requests;
  Sample connections;
  Sample connection_limit;
  Sample refused_connections;
  // By EndReason of connections/connections.h: resets, frames.
  std::array<Sample, metrics::kEndReasons.size()> ended_connections;
  Sample memory_budget_bytes;
  // By MemoryKind: receive, staging, response; then region.
  std::array<Sample, metrics::kMemoryKinds.size()> memory_used_bytes;
  // By RegionKind: system, cuda.
  std::array<Sample, metrics::kRegionMemories.size()> regions;
  std::array<Sample, metrics::kRegionMemories.size()> region_size_bytes;
  Sample region_limit_bytes;
  // By RegionFault. Counters, like `refused_connections` and `ended_connections`.
  std::array<Sample, metrics::kRegionFaults.size()> refused_regions;
  SlabPool slab_pool;
  // Every device on which batches run: GPUs, or the CPU.
  std::vector<Device> devices;
  // Every MLP that the server offers.
  std::vector<Mlp> mlps;
  // 1 or 0.
  Sample ready;
  Sample live;
  Sample draining;
  // A counter, like `refused_connections` and `ended_connections`.
  Sample dropped_log_lines;
};

// The labels of swiglu_build_info.
struct BuildInfo {
  std::string version;
  std::string commit;
  std::string cuda;  // "none" in a build without CUDA
};

// Writes the page. Thread-safe.
class MetricsPage {
 public:
  // Makes the series of `gauges.devices`. `observer` and all that `gauges` reads must outlive the
  // page.
  MetricsPage(PrometheusObserver* observer, Gauges gauges, BuildInfo build);

  // Returns all series in Prometheus's text format 0.0.4. Takes about a millisecond.
  std::string Render() const;

 private:
  const PrometheusObserver* const observer_;
  const Gauges gauges_;
  const BuildInfo build_;
};

}  // namespace swiglu::server
