// SPDX-License-Identifier: Apache-2.0
//
// Makes the series of GPUs from their figures.
#pragma once

#include <string>
#include <vector>

#include "prometheus/metric_family.h"
#include "server/core/gpu_figures.h"

namespace swiglu::server {

// A GPU and its value of the label `device`.
struct LabelledGpu {
  std::string device;
  GpuFigures figures;
};

// The families. Each has a series for every GPU that has this figure. A family without any series
// is left out. A GPU without a UUID has no series under Triton's names.
std::vector<prometheus::MetricFamily> MakeGpuFamilies(const std::vector<LabelledGpu>& gpus);

}  // namespace swiglu::server
