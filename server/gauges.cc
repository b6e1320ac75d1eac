// SPDX-License-Identifier: Apache-2.0
//
// A function for each figure. See the header.
#include "server/gauges.h"

#include "server/log/log.h"

namespace swiglu::server {
namespace {

void AddRequests(Server& server, Gauges& gauges) {
  const Admission& admission = server.admission();
  const Batcher& batcher = server.batcher();
  const Health& health = server.health();
  gauges.queued_requests = [&] { return admission.queued_requests(); };
  gauges.queue_limit_requests = [&] { return admission.options().max_queued_requests; };
  gauges.inflight_requests = [&] { return batcher.inflight_requests(); };
  gauges.memory_budget_bytes = [&] { return admission.options().memory_budget_bytes; };
  for (const MemoryKind kind :
       {MemoryKind::kReceive, MemoryKind::kStaging, MemoryKind::kResponse}) {
    gauges.memory_used_bytes[static_cast<size_t>(kind)] = [&admission, kind] {
      return admission.used_bytes(kind);
    };
  }
  gauges.ready = [&] { return health.ready() ? 1 : 0; };
  gauges.live = [&] { return health.live() ? 1 : 0; };
  gauges.draining = [&] { return admission.draining() ? 1 : 0; };
}

void AddConnections(Server& server, Gauges& gauges) {
  Connections& connections = server.connections();
  gauges.connections = [&] { return connections.NumOpen(); };
  gauges.refused_connections = [&] { return connections.num_refused(); };
  gauges.connection_limit = [limit = server.options().rpc.max_connections] { return limit; };
  for (const EndReason reason : {EndReason::kResets, EndReason::kFrames}) {
    gauges.ended_connections[static_cast<size_t>(reason)] = [&connections, reason] {
      return connections.num_ended(reason);
    };
  }
}

void AddRegions(const RegionRegistry& regions, Gauges& gauges) {
  for (const RegionKind kind : {RegionKind::kSystem, RegionKind::kCuda}) {
    const auto i = static_cast<size_t>(kind);
    gauges.regions[i] = [&regions, kind] { return regions.num_regions(kind); };
    gauges.region_size_bytes[i] = [&regions, kind] { return regions.size_bytes(kind); };
  }
  // The kind `region`, which comes after those of the budget.
  gauges.memory_used_bytes[kNumMemoryKinds] =
      gauges.region_size_bytes[static_cast<size_t>(RegionKind::kSystem)];
  gauges.region_limit_bytes = [&regions] { return regions.limits().max_pinned_bytes; };
  for (size_t i = 0; i < gauges.refused_regions.size(); ++i) {
    const auto fault = static_cast<RegionFault>(i);
    gauges.refused_regions[i] = [&regions, fault] { return regions.num_refused(fault); };
  }
}

void AddDevices(const CreatedExecutor& executor, const GpuMonitor& gpus, Gauges& gauges) {
  const CachingSlabPool* pool = executor.slab_pool;
  gauges.slab_pool.memory = executor.cuda_devices.empty() ? "host" : "pinned";
  gauges.slab_pool.bytes = {[pool] { return pool->used_bytes(); },
                            [pool] { return pool->cached_bytes(); }};
  for (const DeviceInfo& device : executor.cuda_devices) {
    const int ordinal = device.ordinal;
    gauges.devices.push_back({ordinal, [&gpus, ordinal] { return gpus.memory_used_bytes(ordinal); },
                              [&gpus, ordinal] { return gpus.figures(ordinal); }});
  }
  if (executor.cuda_devices.empty()) {
    gauges.devices.push_back(
        {kCpuDevice, [pool] { return pool->used_bytes() + pool->cached_bytes(); }});
  }
}

void AddMlps(const MlpStore& mlps, Gauges& gauges) {
  for (const OfferedMlp& mlp : mlps.mlps()) {
    gauges.mlps.push_back({MlpSeries(mlp.spec.name), [&mlp] { return FiguresOf(mlp); }});
  }
}

}  // namespace

Gauges GaugesOf(Server& server, const CreatedExecutor& executor, const GpuMonitor& gpus,
                const MlpStore& mlps) {
  Gauges gauges;
  AddRequests(server, gauges);
  AddConnections(server, gauges);
  AddRegions(server.regions(), gauges);
  AddDevices(executor, gpus, gauges);
  AddMlps(mlps, gauges);
  gauges.dropped_log_lines = [] { return logging::NumDroppedLines(); };
  return gauges;
}

}  // namespace swiglu::server
