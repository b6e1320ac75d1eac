// SPDX-License-Identifier: Apache-2.0
//
// Makes the series, and adds each record to the series that it belongs to.
#include "server/metrics/prometheus_observer.h"

#include <algorithm>
#include <initializer_list>
#include <string>

#include "absl/status/status.h"
#include "server/metrics/family.h"

namespace swiglu::server {
namespace {

using Scale = AtomicHistogram::Scale;
using metrics::Direction;
using metrics::Metric;
using metrics::Phase;

static_assert(metrics::kPaths.size() == kNumPaths);
static_assert(metrics::kReasons.size() == kNumRejections);
static_assert(metrics::kRegionMemories.size() == kNumRegionKinds);
static_assert(metrics::kRegionFaults.size() == kNumRegionFaults);
static_assert(metrics::kDeviceErrorKinds.size() == kNumDeviceErrors);

template <typename Enum>
constexpr size_t Index(Enum value) {
  return static_cast<size_t>(value);
}

prometheus::Labels MakeLabels(const Metric& metric, std::initializer_list<std::string> values) {
  prometheus::Labels labels;
  size_t i = 0;
  for (const std::string& value : values) labels.emplace(metric.labels[i++], value);
  return labels;
}

prometheus::Family<prometheus::Counter>& CounterFamily(const Metric& metric,
                                                       prometheus::Registry& registry) {
  return prometheus::BuildCounter().Name(metric.name).Help(metric.help).Register(registry);
}

prometheus::Counter* AddCounter(prometheus::Family<prometheus::Counter>& family,
                                const Metric& metric, std::initializer_list<std::string> values) {
  return &family.Add(MakeLabels(metric, values));
}

}  // namespace

std::string DeviceLabel(int device) {
  return device == kCpuDevice ? metrics::kCpuDeviceLabel : std::to_string(device);
}

PrometheusObserver::PrometheusObserver(const ModelRegistry& models) {
  MakeModelSeries(models);
  MakeBatchSeries(models);
  MakeTokenSeries(models);
  auto& bytes = CounterFamily(metrics::kRequestBytes, registry_);
  for (size_t i = 0; i < request_bytes_.size(); ++i) {
    request_bytes_[i] = AddCounter(bytes, metrics::kRequestBytes, {metrics::kDirections[i]});
  }
  auto& region_bytes = CounterFamily(metrics::kRegionBytes, registry_);
  for (size_t kind = 0; kind < region_bytes_.size(); ++kind) {
    for (size_t i = 0; i < metrics::kDirections.size(); ++i) {
      region_bytes_[kind][i] =
          AddCounter(region_bytes, metrics::kRegionBytes,
                     {metrics::kRegionMemories[kind], metrics::kDirections[i]});
    }
  }
  auto& rejected = CounterFamily(metrics::kRejected, registry_);
  for (size_t i = 0; i < rejected_.size(); ++i) {
    rejected_[i] = AddCounter(rejected, metrics::kRejected, {metrics::kReasons[i]});
  }
  device_bytes_ = &CounterFamily(metrics::kDeviceBytes, registry_);
  device_errors_ = &CounterFamily(metrics::kDeviceErrors, registry_);
  device_poisoned_ = &prometheus::BuildGauge()
                          .Name(metrics::kDevicePoisoned.name)
                          .Help(metrics::kDevicePoisoned.help)
                          .Register(registry_);
}

void PrometheusObserver::MakeModelSeries(const ModelRegistry& models) {
  auto& requests = CounterFamily(metrics::kRequests, registry_);
  HistogramFamily& durations = histograms_.emplace_back(metrics::kRequestDuration);
  HistogramFamily& phases = histograms_.emplace_back(metrics::kPhaseDuration);
  auto& elements = CounterFamily(metrics::kElements, registry_);
  const auto add_requests = [&](const std::string& name, ModelSeries& series) {
    for (int c = 0; c < metrics::kNumCodes; ++c) {
      series.requests[c] =
          AddCounter(requests, metrics::kRequests,
                     {name, absl::StatusCodeToString(static_cast<absl::StatusCode>(c))});
    }
    series.duration = durations.Add(Scale::kNanosecondsPerSecond, {name});
  };
  for (const Model* model : models.models()) {
    const std::string& name = model->series;
    const auto [found, is_new] = series_.try_emplace(name);
    ModelSeries& series = found->second;
    models_.push_back(&series);
    if (!is_new) continue;
    add_requests(name, series);
    for (size_t p = 0; p < metrics::kPhases.size(); ++p) {
      series.phases[p] = phases.Add(Scale::kNanosecondsPerSecond, {name, metrics::kPhases[p]});
    }
    series.elements = AddCounter(elements, metrics::kElements, {name});
  }
  add_requests(metrics::kUnknownModel, unknown_);
}

void PrometheusObserver::MakeBatchSeries(const ModelRegistry& models) {
  auto& batches = CounterFamily(metrics::kBatches, registry_);
  for (const Model* model : models.models()) {
    auto& paths = batches_.emplace_back();
    for (size_t path = 0; path < metrics::kPaths.size(); ++path) {
      // The same labels give the same counter.
      paths[path] = AddCounter(batches, metrics::kBatches,
                               {std::string(OpLabel(model->op)),
                                std::string(DtypeLabel(model->dtype)), metrics::kPaths[path]});
    }
  }
  batch_requests_ = histograms_.emplace_back(metrics::kBatchRequests).Add(Scale::kOne, {});
  batch_elements_ = histograms_.emplace_back(metrics::kBatchElements).Add(Scale::kOne, {});
}

void PrometheusObserver::MakeTokenSeries(const ModelRegistry& models) {
  tokens_.resize(models.models().size());
  HistogramFamily* batches = nullptr;  // only if there is an MLP
  for (const Model* model : models.models()) {
    if (IsElementwise(model->op)) continue;
    const auto [found, is_new] = token_series_.try_emplace({model->series, model->op});
    TokenSeries& series = found->second;
    tokens_[static_cast<size_t>(model->index)] = &series;
    if (!is_new) continue;
    if (batches == nullptr) batches = &histograms_.emplace_back(metrics::kMlpBatchTokens);
    const std::string op(OpLabel(model->op));
    series.tokens = AddCounter(CounterFamily(metrics::kMlpTokens, registry_), metrics::kMlpTokens,
                               {model->series, op});
    series.batch_tokens = batches->Add(Scale::kOne, {model->series, op});
  }
}

PrometheusObserver::ModelSeries& PrometheusObserver::SeriesOf(const Model* model) {
  return model == nullptr ? unknown_ : *models_[static_cast<size_t>(model->index)];
}

void PrometheusObserver::AddDevice(int device) {
  const auto is_same = [device](const DeviceSeries& series) { return series.device == device; };
  if (std::none_of(devices_.begin(), devices_.end(), is_same)) {
    devices_.push_back(
        {device, AddCounter(*device_bytes_, metrics::kDeviceBytes, {DeviceLabel(device)})});
  }
  for (const char* kind : metrics::kDeviceErrorKinds) {
    AddCounter(*device_errors_, metrics::kDeviceErrors, {DeviceLabel(device), kind});
  }
  device_poisoned_->Add(MakeLabels(metrics::kDevicePoisoned, {DeviceLabel(device)}));
}

std::vector<prometheus::MetricFamily> PrometheusObserver::Collect() const {
  std::vector<prometheus::MetricFamily> families = registry_.Collect();
  for (const HistogramFamily& family : histograms_) families.push_back(family.Collect());
  families.push_back(
      MakeSingle(metrics::kRetryPushbacks,
                 static_cast<double>(num_retry_pushbacks_.load(std::memory_order_relaxed))));
  return families;
}

void PrometheusObserver::RequestFinished(const RequestRecord& record) {
  ModelSeries& series = SeriesOf(record.model);
  series.requests[Index(record.status.code())]->Increment();
  if (record.rejection.has_value()) rejected_[Index(*record.rejection)]->Increment();
  request_bytes_[Index(Direction::kIn)]->Increment(static_cast<double>(record.bytes_in));
  request_bytes_[Index(Direction::kOut)]->Increment(static_cast<double>(record.bytes_out));
  if (!record.status.ok() || record.model == nullptr) return;
  series.elements->Increment(static_cast<double>(record.num_elements));
  const Model& model = *record.model;
  if (const TokenSeries* const mlp = tokens_[static_cast<size_t>(model.index)]; mlp != nullptr) {
    mlp->tokens->Increment(static_cast<double>(record.num_elements / model.row_elements));
  }
  series.phases[Index(Phase::kReceive)]->Observe(record.times.receive.count());
  series.phases[Index(Phase::kQueue)]->Observe(record.times.queue.count());
  series.phases[Index(Phase::kCopyIn)]->Observe(record.times.copy_in.count());
  series.phases[Index(Phase::kCompute)]->Observe(record.times.compute.count());
  series.phases[Index(Phase::kCopyOut)]->Observe(record.times.copy_out.count());
  CountRegionBytes(record);
}

void PrometheusObserver::CountRegionBytes(const RequestRecord& record) {
  const auto count = [](int64_t bytes, Counter counter) {
    if (bytes != 0) counter->Increment(static_cast<double>(bytes));
  };
  for (size_t kind = 0; kind < region_bytes_.size(); ++kind) {
    count(record.region_bytes_in[kind], region_bytes_[kind][Index(Direction::kIn)]);
    count(record.region_bytes_out[kind], region_bytes_[kind][Index(Direction::kOut)]);
  }
}

void PrometheusObserver::RequestSent(const Model* model, std::chrono::nanoseconds total,
                                     std::chrono::nanoseconds send) {
  ModelSeries& series = SeriesOf(model);
  series.duration->Observe(total.count());
  if (model != nullptr) series.phases[Index(Phase::kSend)]->Observe(send.count());
}

void PrometheusObserver::RetryAdvised() {
  num_retry_pushbacks_.fetch_add(1, std::memory_order_relaxed);
}

void PrometheusObserver::BatchFinished(const BatchRecord& record) {
  const Model& model = *record.model;
  batches_[static_cast<size_t>(model.index)][Index(record.execution.path)]->Increment();
  batch_requests_->Observe(record.num_requests);
  batch_elements_->Observe(record.num_elements);
  if (const TokenSeries* const mlp = tokens_[static_cast<size_t>(model.index)]; mlp != nullptr) {
    mlp->batch_tokens->Observe(record.num_elements / model.row_elements);
  }
  if (!record.execution.status.ok()) return;
  const int64_t bytes = BytesReadAndWritten(model, record.num_elements);
  for (const DeviceSeries& series : devices_) {
    if (series.device == record.execution.device) {
      series.bytes->Increment(static_cast<double>(bytes));
    }
  }
}

void PrometheusObserver::DeviceFailed(int device, DeviceError kind) {
  AddCounter(*device_errors_, metrics::kDeviceErrors,
             {DeviceLabel(device), metrics::kDeviceErrorKinds[Index(kind)]})
      ->Increment();
  if (kind != DeviceError::kSticky) return;
  device_poisoned_->Add(MakeLabels(metrics::kDevicePoisoned, {DeviceLabel(device)})).Set(1);
}

}  // namespace swiglu::server
