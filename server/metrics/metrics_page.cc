// SPDX-License-Identifier: Apache-2.0
//
// Puts the counted series and the sampled ones together and prints them.
#include "server/metrics/metrics_page.h"

#include <initializer_list>
#include <iterator>
#include <utility>

#include "prometheus/metric_family.h"
#include "prometheus/text_serializer.h"
#include "server/metrics/process_metrics.h"

namespace swiglu::server {
namespace {

using metrics::Metric;

// Samples `Gauges` and the process when it is collected.
class GaugeCollector final : public prometheus::Collectable {
 public:
  GaugeCollector(Gauges gauges, BuildInfo build)
      : gauges_(std::move(gauges)), build_(std::move(build)) {}

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const Gauges gauges_;
  const BuildInfo build_;
  const ProcessMetrics process_;
};

double Read(const Gauges::Sample& sample) { return sample ? sample() : 0; }

prometheus::MetricFamily Family(const Metric& metric) {
  prometheus::MetricFamily family;
  family.name = metric.name;
  family.help = metric.help;
  family.type = metric.type;
  return family;
}

void Add(prometheus::MetricFamily& family, const Metric& metric,
         std::initializer_list<std::string> label_values, double value) {
  prometheus::ClientMetric& series = family.metric.emplace_back();
  size_t i = 0;
  for (const std::string& label_value : label_values) {
    series.label.push_back({metric.labels[i++], label_value});
  }
  // The serializer reads the one that the family's type names.
  series.gauge.value = value;
  series.counter.value = value;
}

// A family of one series without labels.
prometheus::MetricFamily Single(const Metric& metric, double value) {
  prometheus::MetricFamily family = Family(metric);
  Add(family, metric, {}, value);
  return family;
}

std::vector<prometheus::MetricFamily> GaugeCollector::Collect() const {
  std::vector<prometheus::MetricFamily> families;
  families.push_back(Single(metrics::kQueuedRequests, Read(gauges_.queued_requests)));
  families.push_back(Single(metrics::kInflightRequests, Read(gauges_.inflight_requests)));
  families.push_back(Single(metrics::kMemoryBudget, Read(gauges_.memory_budget_bytes)));
  families.push_back(Family(metrics::kMemoryUsed));
  for (size_t i = 0; i < metrics::kMemoryKinds.size(); ++i) {
    Add(families.back(), metrics::kMemoryUsed, {metrics::kMemoryKinds[i]},
        Read(gauges_.memory_used_bytes[i]));
  }
  families.push_back(Single(metrics::kReady, Read(gauges_.ready)));
  families.push_back(Family(metrics::kBuildInfo));
  Add(families.back(), metrics::kBuildInfo, {build_.version, build_.commit, build_.cuda}, 1);
  if (!gauges_.devices.empty()) families.push_back(Family(metrics::kDeviceMemoryUsed));
  for (const Gauges::Device& device : gauges_.devices) {
    Add(families.back(), metrics::kDeviceMemoryUsed, {DeviceLabel(device.device)},
        Read(device.memory_used_bytes));
  }

  const ProcessMetrics::Values process = process_.Read();
  families.push_back(Single(metrics::kProcessCpu, process.cpu_seconds));
  families.push_back(Single(metrics::kProcessResident, process.resident_bytes));
  families.push_back(Single(metrics::kProcessVirtual, process.virtual_bytes));
  families.push_back(Single(metrics::kProcessOpenFds, process.open_fds));
  families.push_back(Single(metrics::kProcessMaxFds, process.max_fds));
  families.push_back(Single(metrics::kProcessStartTime, process.start_time_seconds));
  return families;
}

}  // namespace

MetricsPage::MetricsPage(PrometheusObserver* observer, Gauges gauges, BuildInfo build)
    : observer_(observer) {
  for (const Gauges::Device& device : gauges.devices) observer->AddDevice(device.device);
  gauges_ = std::make_unique<GaugeCollector>(std::move(gauges), std::move(build));
}

std::string MetricsPage::Render() const {
  std::vector<prometheus::MetricFamily> families = observer_->Collect();
  std::vector<prometheus::MetricFamily> sampled = gauges_->Collect();
  std::move(sampled.begin(), sampled.end(), std::back_inserter(families));
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace swiglu::server
