// SPDX-License-Identifier: Apache-2.0
//
// Which figure is which series.
#include "server/metrics/gpu_families.h"

#include <optional>
#include <utility>

#include "server/metrics/family.h"
#include "server/metrics/names.h"

namespace swiglu::server {
namespace {

using metrics::Metric;
using Figure = std::optional<double> GpuFigures::*;

// One figure under this server's name and, where Triton shows it too, under Triton's.
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

prometheus::MetricFamily OwnFamily(const Metric& metric, Figure figure,
                                   const std::vector<LabelledGpu>& gpus) {
  prometheus::MetricFamily family = MakeFamily(metric);
  for (const LabelledGpu& gpu : gpus) {
    const std::optional<double>& value = gpu.figures.*figure;
    if (value.has_value()) AddSeries(family, metric, {gpu.device}, *value);
  }
  return family;
}

prometheus::MetricFamily TritonFamily(const Metric& metric, Figure figure,
                                      const std::vector<LabelledGpu>& gpus) {
  prometheus::MetricFamily family = MakeFamily(metric);
  for (const LabelledGpu& gpu : gpus) {
    const std::optional<double>& value = gpu.figures.*figure;
    if (value.has_value() && !gpu.figures.uuid.empty()) {
      AddSeries(family, metric, {gpu.figures.uuid}, *value);
    }
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
  for (const FigureMetric& figure : kFigures) add(OwnFamily(*figure.metric, figure.figure, gpus));
  add(ThrottlingFamily(gpus));
  add(EccFamily(gpus));
  for (const FigureMetric& figure : kFigures) {
    if (figure.triton_metric != nullptr) {
      add(TritonFamily(*figure.triton_metric, figure.figure, gpus));
    }
  }
  return families;
}

}  // namespace swiglu::server
