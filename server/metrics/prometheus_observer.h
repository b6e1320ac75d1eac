// SPDX-License-Identifier: Apache-2.0
//
// Turns the reports of the data path into Prometheus series. The constructor makes the series, and
// reports find them by index. So a report takes a few hundred nanoseconds and allocates nothing.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/gauge.h"
#include "prometheus/metric_family.h"
#include "prometheus/registry.h"
#include "server/core/model_registry.h"
#include "server/core/observer.h"
#include "server/metrics/histogram.h"
#include "server/metrics/names.h"

namespace swiglu::server {

// The value of the label `device` for a CUDA ordinal or kCpuDevice.
std::string DeviceLabel(int device);

// Counts requests, batches and device errors. All counts start at zero. Thread-safe.
class PrometheusObserver final : public Observer {
 public:
  // Makes the series of `models`, and does not keep `models`. REQUIRES: the models of all reports
  // are among them.
  explicit PrometheusObserver(const ModelRegistry& models);
  PrometheusObserver(const PrometheusObserver&) = delete;
  PrometheusObserver& operator=(const PrometheusObserver&) = delete;

  // Makes the series of a device (an ordinal or kCpuDevice). A second call for the same device does
  // nothing. Without a call, a device gets series only when it fails. REQUIRES: no batch has run
  // yet.
  void AddDevice(int device);

  // Returns every series with its current value. Too slow for the data path.
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

  // The series of all models with the same `Model::series`, or of all unknown models together.
  // Requests for an unknown model complete no phase and have no elements.
  struct ModelSeries {
    std::array<Counter, metrics::kNumCodes> requests{};  // by absl::StatusCode
    Histogram duration = nullptr;
    std::array<Histogram, metrics::kPhases.size()>
        phases{};                // by Phase; nullptr for unknown models
    Counter elements = nullptr;  // nullptr for unknown models
  };

  void MakeModelSeries(const ModelRegistry& models);
  void MakeBatchSeries(const ModelRegistry& models);
  void MakeTokenSeries(const ModelRegistry& models);
  ModelSeries& SeriesOf(const Model* model);
  void CountRegionBytes(const RequestRecord& record);

  // The series of the models of one MLP with the same operation.
  struct TokenSeries {
    Counter tokens = nullptr;
    Histogram batch_tokens = nullptr;
  };

  // The byte counter of a device.
  struct DeviceSeries {
    int device;
    Counter bytes;
  };

  // These two own all series. The pointers below point into them.
  prometheus::Registry registry_;
  std::deque<HistogramFamily> histograms_;
  std::map<std::string, ModelSeries> series_;  // by Model::series
  ModelSeries unknown_;
  std::vector<ModelSeries*> models_;                                // by Model::index
  std::array<Counter, metrics::kDirections.size()> request_bytes_;  // by Direction
  // By RegionKind, Direction.
  std::array<std::array<Counter, metrics::kDirections.size()>, kNumRegionKinds> region_bytes_;
  std::array<Counter, kNumRejections> rejected_;  // by Rejection
  // By Model::index, Path. Models of the same operation and dtype share their counters.
  std::vector<std::array<Counter, kNumPaths>> batches_;
  // By Model::index; nullptr if the model belongs to no MLP.
  std::vector<const TokenSeries*> tokens_;
  std::map<std::pair<std::string, Op>, TokenSeries> token_series_;  // by Model::series
  Histogram batch_requests_ = nullptr;
  Histogram batch_elements_ = nullptr;
  prometheus::Family<prometheus::Counter>* device_bytes_ = nullptr;
  std::vector<DeviceSeries> devices_;  // constant after the first batch
  prometheus::Family<prometheus::Counter>* device_errors_ = nullptr;
  prometheus::Family<prometheus::Gauge>* device_poisoned_ = nullptr;
  std::atomic<int64_t> num_retry_pushbacks_{0};
};

}  // namespace swiglu::server
