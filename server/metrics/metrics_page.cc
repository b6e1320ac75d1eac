// SPDX-License-Identifier: Apache-2.0
//
// Puts the counted series and the sampled ones together and prints them.
#include "server/metrics/metrics_page.h"

#include <iterator>
#include <optional>
#include <utility>

#include "prometheus/metric_family.h"
#include "prometheus/text_serializer.h"
#include "server/metrics/family.h"
#include "server/metrics/gpu_families.h"
#include "server/metrics/process_metrics.h"

namespace swiglu::server {
namespace {

// Samples `Gauges` and the process when it is collected.
class GaugeCollector final : public prometheus::Collectable {
 public:
  GaugeCollector(Gauges gauges, BuildInfo build)
      : gauges_(std::move(gauges)), build_(std::move(build)) {}

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  using Families = std::vector<prometheus::MetricFamily>;

  void CollectServer(Families& families) const;
  void CollectMemory(Families& families) const;
  void CollectDevices(Families& families) const;
  void CollectProcess(Families& families) const;

  const Gauges gauges_;
  const BuildInfo build_;
  const ProcessMetrics process_;
};

double Read(const Gauges::Sample& sample) { return sample ? sample() : 0; }

void Append(std::vector<prometheus::MetricFamily> more,
            std::vector<prometheus::MetricFamily>& families) {
  std::move(more.begin(), more.end(), std::back_inserter(families));
}

std::vector<prometheus::MetricFamily> GaugeCollector::Collect() const {
  std::vector<prometheus::MetricFamily> families;
  CollectServer(families);
  CollectMemory(families);
  CollectDevices(families);
  CollectProcess(families);
  return families;
}

void GaugeCollector::CollectServer(Families& families) const {
  families.push_back(MakeSingle(metrics::kQueuedRequests, Read(gauges_.queued_requests)));
  families.push_back(MakeSingle(metrics::kQueueLimit, Read(gauges_.queue_limit_requests)));
  families.push_back(MakeSingle(metrics::kInflightRequests, Read(gauges_.inflight_requests)));
  families.push_back(MakeSingle(metrics::kConnections, Read(gauges_.connections)));
  families.push_back(MakeSingle(metrics::kConnectionLimit, Read(gauges_.connection_limit)));
  families.push_back(MakeSingle(metrics::kRefusedConnections, Read(gauges_.refused_connections)));
  families.push_back(MakeFamily(metrics::kEndedConnections));
  for (size_t i = 0; i < metrics::kEndReasons.size(); ++i) {
    AddSeries(families.back(), metrics::kEndedConnections, {metrics::kEndReasons[i]},
              Read(gauges_.ended_connections[i]));
  }
  families.push_back(MakeSingle(metrics::kReady, Read(gauges_.ready)));
  families.push_back(MakeSingle(metrics::kLive, Read(gauges_.live)));
  families.push_back(MakeSingle(metrics::kDraining, Read(gauges_.draining)));
  families.push_back(MakeSingle(metrics::kDroppedLogLines, Read(gauges_.dropped_log_lines)));
  families.push_back(MakeFamily(metrics::kBuildInfo));
  AddSeries(families.back(), metrics::kBuildInfo, {build_.version, build_.commit, build_.cuda}, 1);
}

void GaugeCollector::CollectMemory(Families& families) const {
  families.push_back(MakeSingle(metrics::kMemoryBudget, Read(gauges_.memory_budget_bytes)));
  families.push_back(MakeFamily(metrics::kMemoryUsed));
  for (size_t i = 0; i < metrics::kMemoryKinds.size(); ++i) {
    AddSeries(families.back(), metrics::kMemoryUsed, {metrics::kMemoryKinds[i]},
              Read(gauges_.memory_used_bytes[i]));
  }
  families.push_back(MakeFamily(metrics::kSlabPool));
  for (size_t i = 0; i < metrics::kSlabStates.size(); ++i) {
    AddSeries(families.back(), metrics::kSlabPool,
              {gauges_.slab_pool.memory, metrics::kSlabStates[i]},
              Read(gauges_.slab_pool.bytes[i]));
  }
}

void GaugeCollector::CollectDevices(Families& families) const {
  if (gauges_.devices.empty()) return;
  std::vector<LabelledGpu> gpus;
  families.push_back(MakeFamily(metrics::kDeviceMemoryUsed));
  for (const Gauges::Device& device : gauges_.devices) {
    const std::string label = DeviceLabel(device.device);
    const std::optional<double> used_bytes =
        device.memory_used_bytes ? device.memory_used_bytes() : std::nullopt;
    if (used_bytes.has_value()) {
      AddSeries(families.back(), metrics::kDeviceMemoryUsed, {label}, *used_bytes);
    }
    if (!device.gpu) continue;
    if (std::optional<GpuFigures> figures = device.gpu()) {
      gpus.push_back({label, *std::move(figures)});
    }
  }
  Append(MakeGpuFamilies(gpus), families);
}

void GaugeCollector::CollectProcess(Families& families) const {
  const ProcessMetrics::Values process = process_.Read();
  families.push_back(MakeSingle(metrics::kProcessCpu, process.cpu_seconds));
  families.push_back(MakeSingle(metrics::kProcessResident, process.resident_bytes));
  families.push_back(MakeSingle(metrics::kProcessVirtual, process.virtual_bytes));
  families.push_back(MakeSingle(metrics::kProcessOpenFds, process.open_fds));
  families.push_back(MakeSingle(metrics::kProcessMaxFds, process.max_fds));
  families.push_back(MakeSingle(metrics::kProcessStartTime, process.start_time_seconds));
}

}  // namespace

MetricsPage::MetricsPage(PrometheusObserver* observer, Gauges gauges, BuildInfo build)
    : observer_(observer) {
  for (const Gauges::Device& device : gauges.devices) observer->AddDevice(device.device);
  gauges_ = std::make_unique<GaugeCollector>(std::move(gauges), std::move(build));
}

std::string MetricsPage::Render() const {
  std::vector<prometheus::MetricFamily> families = observer_->Collect();
  Append(gauges_->Collect(), families);
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace swiglu::server
