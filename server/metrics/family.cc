// SPDX-License-Identifier: Apache-2.0
//
// Converts the description of a metric to prometheus-cpp's types.
#include "server/metrics/family.h"

#include <cstddef>

namespace swiglu::server {

prometheus::MetricFamily MakeFamily(const metrics::Metric& metric) {
  prometheus::MetricFamily family;
  family.name = metric.name;
  family.help = metric.help;
  family.type = metric.type;
  return family;
}

void AddSeries(prometheus::MetricFamily& family, const metrics::Metric& metric,
               std::initializer_list<std::string> label_values, double value) {
  prometheus::ClientMetric& series = family.metric.emplace_back();
  size_t i = 0;
  for (const std::string& label_value : label_values) {
    series.label.push_back({metric.labels[i++], label_value});
  }
  // The serializer reads the value that belongs to the family's type.
  series.gauge.value = value;
  series.counter.value = value;
}

prometheus::MetricFamily MakeSingle(const metrics::Metric& metric, double value) {
  prometheus::MetricFamily family = MakeFamily(metric);
  AddSeries(family, metric, {}, value);
  return family;
}

}  // namespace swiglu::server
