// SPDX-License-Identifier: Apache-2.0
//
// A histogram for the data path. In prometheus-cpp's histogram, observations and readers of the
// page take the same lock. If a reader lost its core while it held that lock, requests would stall.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "prometheus/client_metric.h"
#include "prometheus/metric_family.h"
#include "server/metrics/names.h"

namespace swiglu::server {

// Counts integers in the buckets of a metric. The integers are in a smaller unit than the metric:
// for example nanoseconds for a metric in seconds. Thread-safe and lock-free.
class AtomicHistogram {
 public:
  // How many units of the observed integers are one unit of the metric.
  enum class Scale : int64_t { kOne = 1, kNanosecondsPerSecond = 1'000'000'000 };

  AtomicHistogram(const metrics::Metric& metric, Scale scale);

  // Two relaxed additions.
  void Observe(int64_t value);

  // Reads one bucket after the other. So an observation that is made meanwhile may count in some of
  // the values and not in others.
  prometheus::ClientMetric Collect() const;

 private:
  const double scale_;
  std::vector<int64_t> upper_bounds_;                // ascending, inclusive
  std::unique_ptr<std::atomic<uint64_t>[]> counts_;  // by bucket, the one without bound last
  std::atomic<int64_t> sum_{0};
};

// The histograms of a metric, by the values of its labels.
class HistogramFamily {
 public:
  explicit HistogramFamily(const metrics::Metric& metric) : metric_(metric) {}

  // Makes the series with those values, in the order of the metric's labels. It lives as long as
  // the family.
  AtomicHistogram* Add(AtomicHistogram::Scale scale, std::vector<std::string> label_values);

  prometheus::MetricFamily Collect() const;

 private:
  struct Series {
    Series(const metrics::Metric& metric, AtomicHistogram::Scale scale,
           std::vector<std::string> values)
        : histogram(metric, scale), label_values(std::move(values)) {}
    AtomicHistogram histogram;
    const std::vector<std::string> label_values;
  };

  const metrics::Metric& metric_;
  std::deque<Series> series_;  // a deque, so that they keep their addresses
};

}  // namespace swiglu::server
