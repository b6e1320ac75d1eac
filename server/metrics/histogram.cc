// SPDX-License-Identifier: Apache-2.0
//
// Counts observations in atomic buckets, and copies the counts for prometheus-cpp.
#include "server/metrics/histogram.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "server/log/log.h"
#include "server/metrics/family.h"

namespace swiglu::server {

AtomicHistogram::AtomicHistogram(const metrics::Metric& metric, Scale scale)
    : scale_(static_cast<double>(scale)),
      counts_(std::make_unique<std::atomic<uint64_t>[]>(metric.buckets.size() + 1)) {
  for (const double bound : metric.buckets) {
    const int64_t rounded = std::llround(bound * scale_);
    CHECK(upper_bounds_.empty() || upper_bounds_.back() < rounded);
    upper_bounds_.push_back(rounded);
  }
}

void AtomicHistogram::Observe(int64_t value) {
  const auto bucket = std::lower_bound(upper_bounds_.begin(), upper_bounds_.end(), value);
  counts_[bucket - upper_bounds_.begin()].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(value, std::memory_order_relaxed);
}

prometheus::ClientMetric AtomicHistogram::Collect() const {
  prometheus::ClientMetric collected;
  prometheus::ClientMetric::Histogram& histogram = collected.histogram;
  for (size_t i = 0; i <= upper_bounds_.size(); ++i) {
    histogram.sample_count += counts_[i].load(std::memory_order_relaxed);
    const double upper_bound = i < upper_bounds_.size()
                                   ? static_cast<double>(upper_bounds_[i]) / scale_
                                   : std::numeric_limits<double>::infinity();
    histogram.bucket.push_back({histogram.sample_count, upper_bound});
  }
  histogram.sample_sum = static_cast<double>(sum_.load(std::memory_order_relaxed)) / scale_;
  return collected;
}

AtomicHistogram* HistogramFamily::Add(AtomicHistogram::Scale scale,
                                      std::vector<std::string> label_values) {
  return &series_.emplace_back(metric_, scale, std::move(label_values)).histogram;
}

prometheus::MetricFamily HistogramFamily::Collect() const {
  prometheus::MetricFamily family = MakeFamily(metric_);
  for (const Series& series : series_) {
    prometheus::ClientMetric& collected = family.metric.emplace_back(series.histogram.Collect());
    for (size_t i = 0; i < series.label_values.size(); ++i) {
      collected.label.push_back({metric_.labels[i], series.label_values[i]});
    }
  }
  return family;
}

}  // namespace swiglu::server
