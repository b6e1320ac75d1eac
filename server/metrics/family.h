// SPDX-License-Identifier: Apache-2.0
//
// Makes families of series from the metrics that names.h describes. The values of these series are
// looked up when the page is read.
#pragma once

#include <initializer_list>
#include <string>

#include "prometheus/metric_family.h"
#include "server/metrics/names.h"

namespace swiglu::server {

// The family of `metric`, without series.
prometheus::MetricFamily MakeFamily(const metrics::Metric& metric);

// Adds a series. `label_values` are the values of the metric's labels, in the order of the labels.
// REQUIRES: `family` was made from `metric`, a gauge or a counter.
void AddSeries(prometheus::MetricFamily& family, const metrics::Metric& metric,
               std::initializer_list<std::string> label_values, double value);

// The family of a metric without labels.
prometheus::MetricFamily MakeSingle(const metrics::Metric& metric, double value);

}  // namespace swiglu::server
