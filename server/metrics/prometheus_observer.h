// SPDX-License-Identifier: Apache-2.0
//
// Turns what the data path reports into Prometheus series. Every series is made at construction and
// found by index afterwards, so that a report costs some hundred nanoseconds and allocates nothing.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/gauge.h"
#include "prometheus/metric_family.h"
#include "prometheus/registry.h"
#include "server/core/observer.h"
#include "server/metrics/histogram.h"
#include "server/metrics/names.h"

namespace swiglu::server {

// The label `device` of a CUDA ordinal or of kCpuDevice.
std::string DeviceLabel(int device);

// Counts requests, batches and device errors from zero. Thread-safe.
class PrometheusObserver final : public Observer {
 public:
  PrometheusObserver();
  PrometheusObserver(const PrometheusObserver&) = delete;
  PrometheusObserver& operator=(const PrometheusObserver&) = delete;

  // Makes the series of a device (an ordinal or kCpuDevice). Does nothing the second time. Without
  // this call, a device gets series only when it fails. REQUIRES: called before the first batch.
  void AddDevice(int device);

  // Every series with its value now. Not for the data path.
  std::vector<prometheus::MetricFamily> Collect() const;

  void RequestFinished(const RequestRecord& record) override;
  void RequestSent(const Model* model, std::chrono::nanoseconds total,
                   std::chrono::nanoseconds send) override;
  void RetryAdvised() override;
  void BatchFinished(const BatchRecord& record) override;
  void DeviceFailed(int device, DeviceError kind) override;

 private:
  using Counter = prometheus::Counter*;

  using Histogram = AtomicHistogram*;

  // One model's series, or those of all unknown models. Requests for an unknown model complete no
  // phase and have no elements.
  struct ModelSeries {
    std::array<Counter, metrics::kNumCodes> requests{};  // by absl::StatusCode
    Histogram duration = nullptr;
    std::array<Histogram, metrics::kPhases.size()>
        phases{};                // by Phase; nullptr for unknown models
    Counter elements = nullptr;  // nullptr for unknown models
  };

  void MakeModelSeries();
  void MakeBatchSeries();
  ModelSeries& SeriesOf(const Model* model);

  // A device's bytes.
  struct DeviceSeries {
    int device;
    Counter bytes;
  };

  // These own every series; the pointers below point into them.
  prometheus::Registry registry_;
  std::deque<HistogramFamily> histograms_;
  std::array<ModelSeries, kNumModels + 1> models_;                  // by Model::index; unknown last
  std::array<Counter, metrics::kDirections.size()> request_bytes_;  // by Direction
  std::array<Counter, kNumRejections> rejected_;                    // by Rejection
  // By Op, Dtype, Path.
  std::array<std::array<std::array<Counter, kNumPaths>, kNumDtypes>, kNumOps> batches_;
  Histogram batch_requests_ = nullptr;
  Histogram batch_elements_ = nullptr;
  prometheus::Family<prometheus::Counter>* device_bytes_ = nullptr;
  std::vector<DeviceSeries> devices_;  // constant once there are batches
  prometheus::Family<prometheus::Counter>* device_errors_ = nullptr;
  prometheus::Family<prometheus::Gauge>* device_poisoned_ = nullptr;
  std::atomic<int64_t> num_retry_pushbacks_{0};
};

}  // namespace swiglu::server
