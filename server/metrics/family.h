// SPDX-License-Identifier: Apache-2.0
//
// Makes Prometheus's families and series for the metrics of names.h, from values that the caller
// looks up when the page is read.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "prometheus/metric_family.h"
#include "server/core/gpu_figures.h"
#include "server/core/mlp_figures.h"
#include "server/metrics/names.h"

namespace swiglu::server {

// Makes the family of `metric`, without series.
prometheus::MetricFamily MakeFamily(const metrics::Metric& metric);

// Adds a series. `label_values` are in the order of the metric's labels. REQUIRES: `family` was
// made from `metric`, which is a gauge or a counter.
void AddSeries(prometheus::MetricFamily& family, const metrics::Metric& metric,
               std::initializer_list<std::string> label_values, double value);

// Makes the family and the series of a metric without labels.
prometheus::MetricFamily MakeSingle(const metrics::Metric& metric, double value);

// A GPU and its value of the label `device`.
struct LabelledGpu {
  std::string device;
  GpuFigures figures;
};

// Makes the families of the GPUs' figures. Each family is about one figure, and has a series for
// every GPU that reports this figure. A family without any series is left out. A GPU without a UUID
// has no series under Triton's names.
std::vector<prometheus::MetricFamily> MakeGpuFamilies(const std::vector<LabelledGpu>& gpus);

// An MLP and its value of the label `model`.
struct LabelledMlp {
  std::string model;
  MlpFigures figures;
};

// Makes the families of the weights of MLPs, with series for every MLP; none if there is no MLP.
// The bytes of weights have a series for each of `devices`, those of the server, even if it is 0.
std::vector<prometheus::MetricFamily> MakeMlpFamilies(const std::vector<LabelledMlp>& mlps,
                                                      const std::vector<int>& devices);

// What the operating system says about this process. Reads /proc. A value that cannot be read is 0.
// Thread-safe.
std::vector<prometheus::MetricFamily> MakeProcessFamilies();

}  // namespace swiglu::server
