// SPDX-License-Identifier: Apache-2.0
//
// A lock-free histogram for the data path. In prometheus-cpp's histogram, the data path and the
// readers of the page take the same lock. Requests would stall if a reader lost its core while it
// held the lock.
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

// Counts integers in the buckets of a metric. The unit of the integers may be smaller than the
// metric's, such as nanoseconds for a metric in seconds. Thread-safe and lock-free.
class AtomicHistogram {
 public:
  // How many units of the observed integers make one unit of the metric.
  enum class Scale : int64_t { kOne = 1, kNanosecondsPerSecond = 1'000'000'000 };

  AtomicHistogram(const metrics::Metric& metric, Scale scale);

  // Costs two relaxed additions.
  void Observe(int64_t value);

  // Reads the buckets and the sum one after the other, so a concurrent observation may be in some
  // of them and not in others.
  prometheus::ClientMetric Collect() const;

 private:
  const double scale_;
  std::vector<int64_t> upper_bounds_;                // ascending, inclusive
  std::unique_ptr<std::atomic<uint64_t>[]> counts_;  // by bucket; the last one has no bound
  std::atomic<int64_t> sum_{0};
};

// The histograms of one metric, one for each combination of label values.
class HistogramFamily {
 public:
  explicit HistogramFamily(const metrics::Metric& metric) : metric_(metric) {}

  // Adds the histogram with these label values, in the order of the metric's labels. The histogram
  // lives as long as the family.
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
  std::deque<Series> series_;  // a deque, so that histograms keep their addresses
};

}  // namespace swiglu::server
