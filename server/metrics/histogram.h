// SPDX-License-Identifier: Apache-2.0
//
// A histogram for the data path. In prometheus-cpp's histogram, observations and readers of the
// page take the same lock: a reader that loses its core while it holds it would stall requests.
#pragma once

#include <atomic>
#include <cstddef>
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

// Counts integers in the buckets of a metric. The integers are multiples of a unit of the metric's
// own: nanoseconds for one in seconds. Thread-safe and lock-free.
class AtomicHistogram {
 public:
  // How many of the observed integers make one of the metric's unit.
  enum class Scale : int64_t { kOne = 1, kNanosecondsPerSecond = 1'000'000'000 };

  AtomicHistogram(const metrics::Metric& metric, Scale scale);

  // Two relaxed additions.
  void Observe(int64_t value);

  // Reads one bucket after the other, so an observation that is made meanwhile may be missing in a
  // part of it.
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
  std::deque<Series> series_;  // where they lie, they stay
};

}  // namespace swiglu::server
