// SPDX-License-Identifier: Apache-2.0
//
// Collects the counted and the sampled series, and prints them on one page.
#include "server/metrics/metrics_page.h"

#include <iterator>
#include <optional>
#include <utility>

#include "prometheus/metric_family.h"
#include "prometheus/text_serializer.h"
#include "server/metrics/family.h"

namespace swiglu::server {
namespace {

using Families = std::vector<prometheus::MetricFamily>;

double Read(const Gauges::Sample& sample) { return sample ? sample() : 0; }

void Append(Families more, Families& families) {
  std::move(more.begin(), more.end(), std::back_inserter(families));
}

void CollectServer(const Gauges& gauges, const BuildInfo& build, Families& families) {
  families.push_back(MakeSingle(metrics::kQueuedRequests, Read(gauges.queued_requests)));
  families.push_back(MakeSingle(metrics::kQueueLimit, Read(gauges.queue_limit_requests)));
  families.push_back(MakeSingle(metrics::kInflightRequests, Read(gauges.inflight_requests)));
  families.push_back(MakeSingle(metrics::kConnections, Read(gauges.connections)));
  families.push_back(MakeSingle(metrics::kConnectionLimit, Read(gauges.connection_limit)));
  families.push_back(MakeSingle(metrics::kRefusedConnections, Read(gauges.refused_connections)));
  families.push_back(MakeFamily(metrics::kEndedConnections));
  for (size_t i = 0; i < metrics::kEndReasons.size(); ++i) {
    AddSeries(families.back(), metrics::kEndedConnections, {metrics::kEndReasons[i]},
              Read(gauges.ended_connections[i]));
  }
  families.push_back(MakeSingle(metrics::kReady, Read(gauges.ready)));
  families.push_back(MakeSingle(metrics::kLive, Read(gauges.live)));
  families.push_back(MakeSingle(metrics::kDraining, Read(gauges.draining)));
  families.push_back(MakeSingle(metrics::kDroppedLogLines, Read(gauges.dropped_log_lines)));
  families.push_back(MakeFamily(metrics::kBuildInfo));
  AddSeries(families.back(), metrics::kBuildInfo, {build.version, build.commit, build.cuda}, 1);
}

void CollectMemory(const Gauges& gauges, Families& families) {
  families.push_back(MakeSingle(metrics::kMemoryBudget, Read(gauges.memory_budget_bytes)));
  families.push_back(MakeFamily(metrics::kMemoryUsed));
  for (size_t i = 0; i < metrics::kMemoryKinds.size(); ++i) {
    AddSeries(families.back(), metrics::kMemoryUsed, {metrics::kMemoryKinds[i]},
              Read(gauges.memory_used_bytes[i]));
  }
  families.push_back(MakeFamily(metrics::kSlabPool));
  for (size_t i = 0; i < metrics::kSlabStates.size(); ++i) {
    AddSeries(families.back(), metrics::kSlabPool,
              {gauges.slab_pool.memory, metrics::kSlabStates[i]}, Read(gauges.slab_pool.bytes[i]));
  }
}

void CollectDevices(const Gauges& gauges, Families& families) {
  if (gauges.devices.empty()) return;
  std::vector<LabelledGpu> gpus;
  families.push_back(MakeFamily(metrics::kDeviceMemoryUsed));
  for (const Gauges::Device& device : gauges.devices) {
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

}  // namespace

MetricsPage::MetricsPage(PrometheusObserver* observer, Gauges gauges, BuildInfo build)
    : observer_(observer), gauges_(std::move(gauges)), build_(std::move(build)) {
  for (const Gauges::Device& device : gauges_.devices) observer->AddDevice(device.device);
}

std::string MetricsPage::Render() const {
  Families families = observer_->Collect();
  CollectServer(gauges_, build_, families);
  CollectMemory(gauges_, families);
  CollectDevices(gauges_, families);
  Append(MakeProcessFamilies(), families);
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace swiglu::server
