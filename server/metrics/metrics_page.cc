// SPDX-License-Identifier: Apache-2.0
//
// Collects the counted and the sampled series, and prints them on one page.
#include "server/metrics/metrics_page.h"

#include <array>
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

// Adds the family of `metric`, which has one label, with a series for each of its `values`.
template <size_t kSize>
void CollectByLabel(const metrics::Metric& metric, const std::array<const char*, kSize>& values,
                    const std::array<Gauges::Sample, kSize>& samples, Families& families) {
  families.push_back(MakeFamily(metric));
  for (size_t i = 0; i < kSize; ++i) {
    AddSeries(families.back(), metric, {values[i]}, Read(samples[i]));
  }
}

void CollectServer(const Gauges& gauges, const BuildInfo& build, Families& families) {
  families.push_back(MakeSingle(metrics::kQueuedRequests, Read(gauges.queued_requests)));
  families.push_back(MakeSingle(metrics::kQueueLimit, Read(gauges.queue_limit_requests)));
  families.push_back(MakeSingle(metrics::kInflightRequests, Read(gauges.inflight_requests)));
  families.push_back(MakeSingle(metrics::kConnections, Read(gauges.connections)));
  families.push_back(MakeSingle(metrics::kConnectionLimit, Read(gauges.connection_limit)));
  families.push_back(MakeSingle(metrics::kRefusedConnections, Read(gauges.refused_connections)));
  CollectByLabel(metrics::kEndedConnections, metrics::kEndReasons, gauges.ended_connections,
                 families);
  families.push_back(MakeSingle(metrics::kReady, Read(gauges.ready)));
  families.push_back(MakeSingle(metrics::kLive, Read(gauges.live)));
  families.push_back(MakeSingle(metrics::kDraining, Read(gauges.draining)));
  families.push_back(MakeSingle(metrics::kDroppedLogLines, Read(gauges.dropped_log_lines)));
  families.push_back(MakeFamily(metrics::kBuildInfo));
  AddSeries(families.back(), metrics::kBuildInfo, {build.version, build.commit, build.cuda}, 1);
}

void CollectMemory(const Gauges& gauges, Families& families) {
  families.push_back(MakeSingle(metrics::kMemoryBudget, Read(gauges.memory_budget_bytes)));
  CollectByLabel(metrics::kMemoryUsed, metrics::kMemoryKinds, gauges.memory_used_bytes, families);
  families.push_back(MakeFamily(metrics::kSlabPool));
  for (size_t i = 0; i < metrics::kSlabStates.size(); ++i) {
    AddSeries(families.back(), metrics::kSlabPool,
              {gauges.slab_pool.memory, metrics::kSlabStates[i]}, Read(gauges.slab_pool.bytes[i]));
  }
}

void CollectRegions(const Gauges& gauges, Families& families) {
  CollectByLabel(metrics::kRegions, metrics::kRegionMemories, gauges.regions, families);
  CollectByLabel(metrics::kRegionSize, metrics::kRegionMemories, gauges.region_size_bytes,
                 families);
  families.push_back(MakeSingle(metrics::kRegionLimit, Read(gauges.region_limit_bytes)));
  CollectByLabel(metrics::kRefusedRegions, metrics::kRegionFaults, gauges.refused_regions,
                 families);
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

void CollectMlps(const Gauges& gauges, Families& families) {
  std::vector<LabelledMlp> mlps;
  for (const Gauges::Mlp& mlp : gauges.mlps) mlps.push_back({mlp.model, mlp.figures()});
  std::vector<int> devices;
  for (const Gauges::Device& device : gauges.devices) devices.push_back(device.device);
  Append(MakeMlpFamilies(mlps, devices), families);
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
  CollectRegions(gauges_, families);
  CollectDevices(gauges_, families);
  CollectMlps(gauges_, families);
  Append(MakeProcessFamilies(), families);
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace swiglu::server
