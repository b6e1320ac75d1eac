// SPDX-License-Identifier: Apache-2.0
//
// The program swiglu-server: from flags to the graph of parts, built in the order in which they
// depend on each other; then a wait, a drain and an exit code. It decides nothing else.

#include <algorithm>
#include <cstdio>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "server/base/descriptor_limit.h"
#include "server/base/listen_socket.h"
#include "server/batching/admission.h"
#include "server/batching/batcher.h"
#include "server/batching/statistics.h"
#include "server/device/device_factory.h"
#include "server/device/gpu_monitor.h"
#include "server/flags.h"
#include "server/health_probe.h"
#include "server/lifecycle.h"
#include "server/log/log.h"
#include "server/metrics/metrics_page.h"
#include "server/metrics/metrics_server.h"
#include "server/metrics/prometheus_observer.h"
#include "server/rpc/active_requests.h"
#include "server/rpc/control_service.h"
#include "server/rpc/flood_watch.h"
#include "server/rpc/health.h"
#include "server/rpc/infer_service.h"
#include "server/rpc/library_log.h"
#include "server/rpc/message_watch.h"
#include "server/rpc/reflection.h"
#include "server/rpc/request_log.h"
#include "server/rpc/router.h"
#include "server/rpc/rpc_server.h"
#include "server/start_check.h"
#include "version/version.h"

namespace swiglu::server {
namespace {

// How long a fault's last answers may take to leave, and how long calls that carry no inference may
// take to end.
constexpr absl::Duration kLastWords = absl::Seconds(1);

// How often the log says how many lines about requests it has left out.
constexpr absl::Duration kFlushInterval = absl::Seconds(1);

// Settings of libraries that have to come before their first use.
void PrepareLibraries() {
  // Debian's absl checks every lock for deadlocks and aborts on false ones; gRPC takes many.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  RouteLibraryLogs();
}

// Half of the budget, to which admission charges slabs with the size that the pool gives them; a
// little more for what the executor keeps for itself.
CachingSlabPoolOptions PoolFor(int64_t memory_budget_bytes) {
  return {.capacity_bytes = static_cast<size_t>(memory_budget_bytes / 2) + (size_t{1} << 20)};
}

// What small messages may have beyond the other half, at most.
constexpr int64_t kMostSmallReserveBytes = int64_t{8} << 20;

// What the library may hold: that half, and what comes before it is seen or refused. Past it, the
// library breaks calls off that it picks, innocent ones too. Through a unix socket nobody sees what
// comes until it is there.
int64_t ReceiveQuota(const Flags& flags) {
  const bool is_measured = UnixSocketPath(flags.grpc_address).empty();
  return flags.memory_budget_bytes / 2 + (int64_t{is_measured ? 64 : 32} << 20);
}

// What the page shows of the devices and of their memory.
void AddDeviceGauges(const CreatedExecutor& created, const GpuMonitor& gpus, Gauges& gauges) {
  const CachingSlabPool* pool = created.slab_pool;
  gauges.slab_pool.memory = created.cuda_devices.empty() ? "host" : "pinned";
  gauges.slab_pool.bytes = {[pool] { return pool->used_bytes(); },
                            [pool] { return pool->cached_bytes(); }};
  for (const DeviceInfo& device : created.cuda_devices) {
    const int ordinal = device.ordinal;
    gauges.devices.push_back({ordinal, [&gpus, ordinal] { return gpus.memory_used_bytes(ordinal); },
                              [&gpus, ordinal] { return gpus.figures(ordinal); }});
  }
  if (created.cuda_devices.empty()) {
    gauges.devices.push_back(
        {kCpuDevice, [pool] { return pool->used_bytes() + pool->cached_bytes(); }});
  }
}

Gauges MakeGauges(const Admission& admission, const Batcher& batcher, const Health& health) {
  Gauges gauges;
  gauges.queued_requests = [&] { return admission.queued_requests(); };
  gauges.queue_limit_requests = [&] { return admission.options().max_queued_requests; };
  gauges.inflight_requests = [&] { return batcher.inflight_requests(); };
  gauges.memory_budget_bytes = [&] { return admission.options().memory_budget_bytes; };
  for (const MemoryKind kind :
       {MemoryKind::kReceive, MemoryKind::kStaging, MemoryKind::kResponse}) {
    gauges.memory_used_bytes[static_cast<int>(kind)] = [&admission, kind] {
      return admission.used_bytes(kind);
    };
  }
  gauges.ready = [&] { return health.ready() ? 1 : 0; };
  gauges.live = [&] { return health.live() ? 1 : 0; };
  gauges.draining = [&] { return admission.draining() ? 1 : 0; };
  gauges.dropped_log_lines = [] { return logging::NumDroppedLines(); };
  return gauges;
}

void AddConnectionGauges(Connections& connections, int64_t limit, Gauges& gauges) {
  gauges.connections = [&connections] { return connections.NumOpen(); };
  gauges.refused_connections = [&connections] { return connections.num_refused(); };
  gauges.connection_limit = [limit] { return limit; };
  for (const EndReason reason : {EndReason::kResets, EndReason::kFrames}) {
    gauges.ended_connections[static_cast<size_t>(reason)] = [&connections, reason] {
      return connections.num_ended(reason);
    };
  }
}

// Opens the way for as many connections as are `wanted`; how many there may be.
int64_t AllowConnections(int64_t wanted) {
  const DescriptorLimit limit = RaiseDescriptorLimit();
  if (limit.now > limit.before) {
    LOG(INFO, "limit of open files raised from {} to {}", limit.before, limit.now);
  }
  const int64_t allowed = ConnectionLimit(wanted, limit.now);
  if (allowed < wanted) {
    LOG(WARNING, "at most {} connections, not {}: the process may open {} files", allowed, wanted,
        limit.now);
  }
  return allowed;
}

int Fail(const absl::Status& status) {
  LOG(ERROR, "{}", status.message());
  return kExitFailure;
}

// What the end of the server works with.
struct ServingParts {
  StopSource& stop;
  Health& health;
  Admission& admission;
  ActiveRequests& active;
  RequestLog& log;
  RpcServer& rpc;
};

// A device is lost: says so, lets what is already failing be answered, and ends without touching
// the device again: no destructor runs, and so nothing of the device's memory is freed.
[[noreturn]] void ExitAfterFault(const ServingParts& parts) {
  parts.rpc.Broadcast(ServerEvent::kHealthChanged);
  parts.admission.StartDrain();
  parts.rpc.Broadcast(ServerEvent::kDraining);
  parts.active.WaitUntilNone(kLastWords);
  parts.rpc.CloseConnections(kLastWords);
  parts.rpc.Shutdown(kLastWords);
  ExitAfter(
      [&parts] {
        parts.log.Flush();
        LOG(ERROR, "exiting with code {} after a device fault", kExitDeviceFault);
      },
      kExitDeviceFault);
}

// As `StopSource::Wait`; flushes the log of requests meanwhile.
StopReason Await(const ServingParts& parts, absl::Duration timeout) {
  const absl::Time end = absl::Now() + timeout;
  while (true) {
    const StopReason reason = parts.stop.Wait(std::min(end - absl::Now(), kFlushInterval));
    parts.log.Flush();
    if (reason != StopReason::kTimeout || absl::Now() >= end) return reason;
  }
}

// Serves until a signal comes, then drains. Returns the exit code.
int ServeUntilStopped(const Flags& flags, const ServingParts& parts) {
  if (Await(parts, absl::InfiniteDuration()) == StopReason::kDeviceFault) ExitAfterFault(parts);
  parts.health.StopServing();
  parts.rpc.Broadcast(ServerEvent::kHealthChanged);
  LOG(INFO, "not ready any more; serving on for {}", absl::FormatDuration(flags.drain_delay));
  if (Await(parts, flags.drain_delay) == StopReason::kDeviceFault) ExitAfterFault(parts);
  parts.admission.StartDrain();
  parts.rpc.Broadcast(ServerEvent::kDraining);
  const int64_t num_left = parts.active.WaitUntilNone(flags.drain_timeout);
  if (parts.stop.device_failed()) ExitAfterFault(parts);
  if (parts.active.num_in_work() > 0) {
    ExitAfter(
        [&flags, &parts, num_left] {
          parts.log.Flush();
          LOG(ERROR, "drain timeout of {} passed: {} requests cut off",
              absl::FormatDuration(flags.drain_timeout), num_left);
        },
        kExitFailure);
  }
  parts.log.Flush();
  if (num_left > 0)
    LOG(WARNING, "drain timeout passed: answers not taken by their callers: {}", num_left);
  parts.rpc.CloseConnections(kLastWords);
  parts.rpc.Shutdown(kLastWords);
  LOG(INFO, "drained; exiting");
  return 0;
}

int Run(const Flags& flags, int64_t max_connections) {
  StopSource stop([&flags] { logging::ToggleDebug(flags.log_level); });
  PrometheusObserver prometheus;
  Statistics statistics;
  ObserverList observers({&prometheus, &statistics, &stop});

  auto created = CreateExecutor({flags.device, flags.devices, flags.lanes_per_device,
                                 PoolFor(flags.memory_budget_bytes), &observers});
  if (!created.ok()) return Fail(created.status());
  Executor& executor = *created->executor;

  Admission admission({.max_queued_requests = flags.max_queued_requests,
                       .memory_budget_bytes = flags.memory_budget_bytes,
                       .small_message_reserve_bytes =
                           std::min(flags.memory_budget_bytes / 32, kMostSmallReserveBytes)});
  Batcher batcher({.max_queue_delay = absl::ToChronoNanoseconds(flags.max_queue_delay)}, &executor,
                  &observers);
  Health health([&executor] { return executor.healthy(); });
  InferService infer({flags.max_request_bytes}, &admission, &executor, &batcher, &observers);
  const ControlService control(
      {.version = kVersion,
       .device = executor.description(),
       .on_gpu = !created->cuda_devices.empty(),
       .num_lanes = executor.num_lanes(),
       .max_queue_delay = absl::ToChronoMicroseconds(flags.max_queue_delay)},
      &health, &statistics);
  ActiveRequests active;
  RequestLog request_log({.with_peers = flags.log_peers});
  std::optional<Reflection> reflection;
  if (flags.reflection) reflection.emplace();
  const StallLimit stall_limit{absl::ToChronoNanoseconds(flags.stall_timeout)};
  Connections connections(flags.log_peers);
  MessageWatch watch(&admission, &connections, stall_limit.base);
  const FloodWatch flood_watch(&connections, &watch);
  const Router router({&infer, &active, &observers, &request_log, stall_limit, &watch}, &control,
                      &health,
                      {.max_metadata_bytes = flags.max_metadata_bytes,
                       .reflection = reflection.has_value() ? &*reflection : nullptr});

  const GpuMonitor gpus(flags.metrics_address.empty() ? std::vector<DeviceInfo>()
                                                      : created->cuda_devices);
  Gauges gauges = MakeGauges(admission, batcher, health);
  AddConnectionGauges(connections, max_connections, gauges);
  AddDeviceGauges(*created, gpus, gauges);
  const MetricsPage page(&prometheus, std::move(gauges), {kVersion, kCommit, kCudaVersion});
  std::unique_ptr<MetricsServer> metrics;
  if (!flags.metrics_address.empty()) {
    auto listening =
        MetricsServer::Create(flags.metrics_address, [&page] { return page.Render(); });
    if (!listening.ok()) return Fail(listening.status());
    metrics = *std::move(listening);
  }
  auto rpc = RpcServer::Start(
      {.address = flags.grpc_address,
       .unix_socket_mode = flags.unix_socket_mode,
       .max_connections = max_connections,
       .accepting_changed = [&health](bool accepting) { health.SetAccepting(accepting); },
       .io_threads = flags.io_threads,
       .receive_quota_bytes = ReceiveQuota(flags),
       .connections = {.max_age = flags.max_connection_age,
                       .max_age_grace = flags.max_connection_age_grace,
                       .keepalive_time = flags.keepalive_time,
                       .keepalive_timeout = flags.keepalive_timeout,
                       .min_ping_interval = flags.min_ping_interval}},
      &router, &connections);
  if (!rpc.ok()) return Fail(rpc.status());

  LOG(INFO, "swiglu-server {} (commit {}) on {}", kVersion, kCommit, executor.description());
  LOG(INFO, "device {}", created->reason);
  if (metrics != nullptr) {
    const absl::string_view host(flags.metrics_address.data(), flags.metrics_address.rfind(':'));
    LOG(INFO, "metrics on http://{}:{}/metrics", host, metrics->port());
  }
  LOG(INFO, "serving gRPC on {}", (*rpc)->address());
  return ServeUntilStopped(flags, {stop, health, admission, active, request_log, **rpc});
}

// As `Run`, once it is sure that it can start; ends with every line of the log written that
// somebody takes.
int Serve(const Flags& flags) {
  if (!logging::WriteInBackground()) {
    return Fail(absl::ResourceExhaustedError("cannot start: no thread is to be had for the log"));
  }
  EndOnExceptions();
  const int64_t max_connections = AllowConnections(flags.max_connections);
  const absl::Status can_start = CheckStart(NeedsOfServer(
      flags.io_threads, flags.lanes_per_device,
      static_cast<int>(std::thread::hardware_concurrency()), flags.memory_budget_bytes));
  const int code = can_start.ok() ? Run(flags, max_connections) : Fail(can_start);
  logging::Flush(logging::kLastWordsLimit);
  return code;
}

int Main(int argc, char** argv) {
  PrepareLibraries();
  std::variant<Flags, EarlyExit> parsed = ParseFlags(argc, argv);
  if (const auto* exit = std::get_if<EarlyExit>(&parsed)) {
    std::fputs(exit->text.c_str(), exit->code == 0 ? stdout : stderr);
    return exit->code;
  }
  const Flags& flags = std::get<Flags>(parsed);
  logging::SetLevel(flags.log_level);
  logging::SetFormat(flags.log_format);
  if (!flags.health.has_value()) return Serve(flags);
  const absl::Status health = ProbeHealth(flags.grpc_address, *flags.health);
  if (health.ok()) return 0;
  std::fprintf(stderr, "swiglu-server: %s\n", std::string(health.message()).c_str());
  return kExitFailure;
}

}  // namespace
}  // namespace swiglu::server

int main(int argc, char** argv) { return swiglu::server::Main(argc, argv); }
