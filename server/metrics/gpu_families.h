// SPDX-License-Identifier: Apache-2.0
//
// The series of GPUs, from the figures of each.
#pragma once

#include <string>
#include <vector>

#include "prometheus/metric_family.h"
#include "server/core/gpu_figures.h"

namespace swiglu::server {

// A GPU and the value of the label `device` that it has.
struct LabelledGpu {
  std::string device;
  GpuFigures figures;
};

// The families, each with a series for every GPU whose figure is there; those without any are left
// out. A GPU without a UUID has no series under Triton's names.
std::vector<prometheus::MetricFamily> MakeGpuFamilies(const std::vector<LabelledGpu>& gpus);

}  // namespace swiglu::server
