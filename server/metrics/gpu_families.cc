// SPDX-License-Identifier: Apache-2.0
//
// Makes the series of GPUs from their figures: which figure is which series.
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/core/gpu_figures.h"
#include "server/metrics/family.h"
#include "server/metrics/names.h"

namespace swiglu::server {
namespace {

using metrics::Metric;
using Figure = std::optional<double> GpuFigures::*;

// A figure, with this server's metric for it, and Triton's metric if Triton has one.
struct FigureMetric {
  Figure figure;
  const Metric* metric;
  const Metric* triton_metric;
};
constexpr FigureMetric kFigures[] = {
    {&GpuFigures::utilization_ratio, &metrics::kGpuUtilization, &metrics::kNvUtilization},
    {&GpuFigures::memory_used_bytes, &metrics::kGpuMemoryUsed, &metrics::kNvMemoryUsed},
    {&GpuFigures::memory_total_bytes, &metrics::kGpuMemoryTotal, &metrics::kNvMemoryTotal},
    {&GpuFigures::power_watts, &metrics::kGpuPower, &metrics::kNvPower},
    {&GpuFigures::power_limit_watts, &metrics::kGpuPowerLimit, &metrics::kNvPowerLimit},
    {&GpuFigures::energy_joules, &metrics::kGpuEnergy, &metrics::kNvEnergy},
    {&GpuFigures::temperature_celsius, &metrics::kGpuTemperature, nullptr},
};

// A GPU whose label is empty has no series.
template <typename LabelOf>
prometheus::MetricFamily FigureFamily(const Metric& metric, Figure figure,
                                      const std::vector<LabelledGpu>& gpus, LabelOf label_of) {
  prometheus::MetricFamily family = MakeFamily(metric);
  for (const LabelledGpu& gpu : gpus) {
    const std::optional<double>& value = gpu.figures.*figure;
    const std::string& label = label_of(gpu);
    if (value.has_value() && !label.empty()) AddSeries(family, metric, {label}, *value);
  }
  return family;
}

prometheus::MetricFamily ThrottlingFamily(const std::vector<LabelledGpu>& gpus) {
  const Metric& metric = metrics::kGpuClockThrottled;
  prometheus::MetricFamily family = MakeFamily(metric);
  for (const LabelledGpu& gpu : gpus) {
    if (!gpu.figures.throttling.has_value()) continue;
    const ClockThrottling& throttling = *gpu.figures.throttling;
    const bool by_reason[metrics::kThrottleReasons.size()] = {throttling.thermal, throttling.power,
                                                              throttling.hardware};
    for (size_t i = 0; i < metrics::kThrottleReasons.size(); ++i) {
      AddSeries(family, metric, {gpu.device, metrics::kThrottleReasons[i]}, by_reason[i] ? 1 : 0);
    }
  }
  return family;
}

prometheus::MetricFamily EccFamily(const std::vector<LabelledGpu>& gpus) {
  const Metric& metric = metrics::kGpuEccErrors;
  prometheus::MetricFamily family = MakeFamily(metric);
  for (const LabelledGpu& gpu : gpus) {
    const std::optional<double> by_kind[metrics::kEccErrorKinds.size()] = {
        gpu.figures.corrected_ecc_errors, gpu.figures.uncorrected_ecc_errors};
    for (size_t i = 0; i < metrics::kEccErrorKinds.size(); ++i) {
      if (!by_kind[i].has_value()) continue;
      AddSeries(family, metric, {gpu.device, metrics::kEccErrorKinds[i]}, *by_kind[i]);
    }
  }
  return family;
}

}  // namespace

std::vector<prometheus::MetricFamily> MakeGpuFamilies(const std::vector<LabelledGpu>& gpus) {
  std::vector<prometheus::MetricFamily> families;
  const auto add = [&families](prometheus::MetricFamily family) {
    if (!family.metric.empty()) families.push_back(std::move(family));
  };
  const auto device = [](const LabelledGpu& gpu) { return gpu.device; };
  const auto uuid = [](const LabelledGpu& gpu) { return gpu.figures.uuid; };
  for (const FigureMetric& figure : kFigures) {
    add(FigureFamily(*figure.metric, figure.figure, gpus, device));
  }
  add(ThrottlingFamily(gpus));
  add(EccFamily(gpus));
  for (const FigureMetric& figure : kFigures) {
    if (figure.triton_metric == nullptr) continue;
    add(FigureFamily(*figure.triton_metric, figure.figure, gpus, uuid));
  }
  return families;
}

}  // namespace swiglu::server
