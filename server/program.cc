// SPDX-License-Identifier: Apache-2.0
//
// From the command line to the exit code: the flags, the checks before the start, the executor, the
// server, and its metrics.
#include "server/program.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/base/address.h"
#include "server/base/descriptor_limit.h"
#include "server/core/model_registry.h"
#include "server/core/statistics.h"
#include "server/flags.h"
#include "server/gauges.h"
#include "server/gpu/gpu_monitor.h"
#include "server/health_probe.h"
#include "server/lifecycle.h"
#include "server/log/log.h"
#include "server/metrics/metrics_page.h"
#include "server/metrics/metrics_server.h"
#include "server/metrics/prometheus_observer.h"
#include "server/server.h"
#include "server/server_options.h"
#include "server/start_check.h"
#include "server/transport/library_log.h"
#include "server/weights/mlp_store.h"
#include "server/weights/weights_thread.h"
#include "version/version.h"

namespace swiglu::server {
namespace {

// Settings of libraries that have to come before their first use.
void PrepareLibraries() {
  // Debian's absl checks every lock for deadlocks and aborts on false ones; gRPC takes many.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  RouteLibraryLogs();
}

// Raises the limit of open files as far as `wanted` connections need it, beside the files of
// `num_regions` regions. Returns how many connections there may be.
int64_t AllowConnections(int64_t wanted, int64_t num_regions) {
  const DescriptorLimit limit = RaiseDescriptorLimit();
  if (limit.now > limit.before) {
    LOG(INFO, "limit of open files raised from {} to {}", limit.before, limit.now);
  }
  const int64_t allowed = ConnectionLimit(wanted, limit.now - num_regions);
  if (allowed < wanted) {
    LOG(WARNING, "at most {} connections, not {}: the process may open {} files", allowed, wanted,
        limit.now);
  }
  return allowed;
}

// How many layers of MLPs are loaded at a time: enough to keep a disk busy.
int MlpLoadThreads() {
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, 4);
}

int Fail(const absl::Status& status) {
  LOG(ERROR, "{}", status.message());
  return kExitFailure;
}

// What follows the first load of all weights: the server is ready. If weights cannot be loaded, the
// process ends. After a device fault, ServeUntilStopped is ending it already, with another code.
void EndFirstLoad(const absl::Status& loaded, const Executor& executor, Server& server) {
  if (!loaded.ok() && !executor.healthy()) return;
  if (!loaded.ok()) {
    ExitAfter([&loaded] { LOG(ERROR, "exiting: {}", loaded.message()); }, kExitFailure);
  }
  server.SetLoaded();
  LOG(INFO, "all weights are loaded");
}

// The least time that loads of weights have to end after a drain, even if the drain took all of its
// own.
constexpr absl::Duration kLastLoads = absl::Seconds(1);

// Waits until the loading of weights has ended. If it has not at `deadline`, because a file system
// hangs, say, ends the process with `code`.
void EndLoads(WeightsThread& weights, absl::Time deadline, int code) {
  if (weights.JoinBefore(std::max(deadline, absl::Now() + kLastLoads))) return;
  ExitAfter([] { LOG(WARNING, "drain timeout passed: weights are still being loaded"); }, code);
}

// Serves until a signal comes. Returns the exit code.
int Serve(const Flags& flags, int64_t max_connections, const ExecutorFactory& create_executor) {
  StopSource stop([&flags] { logging::ToggleDebug(flags.log_level); });
  const absl::StatusOr<std::unique_ptr<MlpStore>> mlps = MlpStore::Open(flags.mlps);
  if (!mlps.ok()) return Fail(mlps.status());
  const ModelRegistry models(MlpModelsOf(**mlps, flags));
  PrometheusObserver prometheus(models);
  Statistics statistics(models);
  ObserverList observers({&prometheus, &statistics, &stop});
  const auto created = create_executor(ExecutorOptionsOf(flags, **mlps, &observers));
  if (!created.ok()) return Fail(created.status());
  Executor& executor = *created->executor;
  if (flags.cuda_shared_memory && !created->region_opener->Supports(RegionKind::kCuda)) {
    return Fail(absl::FailedPreconditionError(
        absl::StrCat("--cuda_shared_memory=on needs a CUDA device; this server computes on ",
                     executor.description())));
  }
  const bool on_gpu = !created->cuda_devices.empty();
  WeightsThread weights(mlps->get(), created->weights_loader.get(), MlpLoadThreads());
  ServerOptions options = ServerOptionsOf(flags, on_gpu, max_connections);
  absl::Time drain_deadline = absl::InfiniteFuture();
  options.stopping = [&] {
    weights.Stop();
    drain_deadline = absl::Now() + flags.drain_delay + flags.drain_timeout;
  };
  if (flags.mlp_control) options.mlp_reloader = &weights;
  Server server(std::move(options), &models, &executor, &observers, &statistics,
                created->region_opener.get());

  const bool has_metrics = !flags.metrics_address.empty();
  const GpuMonitor gpus(has_metrics ? created->cuda_devices : std::vector<DeviceInfo>());
  const MetricsPage page(&prometheus, GaugesOf(server, *created, gpus, **mlps),
                         {kVersion, kCommit, kCudaVersion});
  std::unique_ptr<MetricsServer> metrics;
  if (has_metrics) {
    auto listening =
        MetricsServer::Create(flags.metrics_address, [&page] { return page.Render(); });
    if (!listening.ok()) return Fail(listening.status());
    metrics = *std::move(listening);
  }
  stop.BeginServing();
  if (const absl::Status started = server.Start(); !started.ok()) return Fail(started);

  LOG(INFO, "swiglu-server {} (commit {}) on {}", kVersion, kCommit, executor.description());
  LOG(INFO, "device {}", created->reason);
  if (metrics != nullptr) {
    LOG(INFO, "metrics on http://{}/metrics", WithPort(flags.metrics_address, metrics->port()));
  }
  LOG(INFO, "serving gRPC on {}", server.rpc().address());
  if (!flags.mlps.empty()) {
    weights.Start([&executor, &server](const absl::Status& loaded) {
      EndFirstLoad(loaded, executor, server);
    });
  }
  const int code = server.ServeUntilStopped(stop);
  EndLoads(weights, drain_deadline, code);
  return code;
}

// The threads that compute MLPs and load their weights.
int MostMlpThreads(const Flags& flags) {
  if (flags.mlps.empty()) return 0;
  return static_cast<int>(std::thread::hardware_concurrency()) + MlpLoadThreads();
}

// The threads of the lanes, if the server takes the GPUs that the flags name, or one.
int MostLaneThreads(const Flags& flags) {
  if (flags.device == DeviceKind::kCpu) return 0;
  const int mlp_lanes = flags.mlps.empty() ? 0 : kMlpLanes;
  const int lanes = flags.lanes_per_device == 0 ? kDefaultCudaLanes : flags.lanes_per_device;
  const int resident_lanes = flags.cuda_shared_memory ? kResidentLanes : 0;
  return std::max(1, static_cast<int>(flags.devices.size())) * (lanes + resident_lanes + mlp_lanes);
}

// As `Serve`, once it is sure that the server can start. Every line of the log that somebody takes
// is written when it returns.
int CheckAndServe(const Flags& flags, const ExecutorFactory& create_executor) {
  if (!logging::WriteInBackground()) {
    return Fail(absl::ResourceExhaustedError("cannot start: no thread is to be had for the log"));
  }
  EndOnExceptions();
  const int64_t max_connections =
      AllowConnections(flags.max_connections, flags.system_shared_memory ? flags.max_regions : 0);
  const absl::Status can_start = CheckStart(NeedsOfServer(
      flags.io_threads, MostLaneThreads(flags) + MostMlpThreads(flags),
      static_cast<int>(std::thread::hardware_concurrency()), flags.memory_budget_bytes));
  const int code =
      can_start.ok() ? Serve(flags, max_connections, create_executor) : Fail(can_start);
  logging::Flush(logging::kLastWordsLimit);
  return code;
}

// Asks a running server for its health. Returns the exit code.
int Probe(const std::string& address, const std::string& service) {
  const absl::Status health = ProbeHealth(address, service);
  if (health.ok()) return 0;
  std::fprintf(stderr, "swiglu-server: %s\n", std::string(health.message()).c_str());
  return kExitFailure;
}

}  // namespace

int RunProgram(int argc, char** argv, const ExecutorFactory& create_executor) {
  PrepareLibraries();
  const std::variant<Flags, EarlyExit> parsed = ParseFlags(argc, argv, ::getenv);
  if (const auto* exit = std::get_if<EarlyExit>(&parsed)) {
    std::fputs(exit->text.c_str(), exit->code == 0 ? stdout : stderr);
    return exit->code;
  }
  const Flags& flags = std::get<Flags>(parsed);
  logging::SetLevel(flags.log_level);
  logging::SetFormat(flags.log_format);
  if (flags.health.has_value()) return Probe(flags.grpc_address, *flags.health);
  return CheckAndServe(flags, create_executor);
}

}  // namespace swiglu::server
