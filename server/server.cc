// SPDX-License-Identifier: Apache-2.0
//
// How the parts are put together, and how they end.
#include "server/server.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "server/base/processes.h"
#include "server/log/log.h"

namespace swiglu::server {
namespace {

// How long a fault's last answers may take to leave, and how long calls that carry no inference may
// take to end.
constexpr absl::Duration kLastWords = absl::Seconds(1);

// How often the log says how many lines about requests it has left out.
constexpr absl::Duration kFlushInterval = absl::Seconds(1);

ControlServiceOptions ControlOptions(const ServerOptions& options, const Executor& executor) {
  return {.version = options.version,
          .device = executor.description(),
          .on_gpu = options.on_gpu,
          .num_lanes = executor.num_lanes(),
          .regions = options.regions.enabled,
          .max_queue_delay = std::chrono::duration_cast<std::chrono::microseconds>(
              options.batching.max_queue_delay)};
}

// All clients of a unix socket, since gRPC does not tell which of them calls.
class UnixClients final : public RegionOwner {
 public:
  explicit UnixClients(std::vector<pid_t> pids) : pids_(std::move(pids)), processes_(pids_) {}
  bool HasEnded() const override { return processes_.HaveEnded(); }
  // Whether these are the clients with those ids now.
  bool Are(const std::vector<pid_t>& pids) const {
    return pids == pids_ && !processes_.HasOneEnded();
  }

 private:
  const std::vector<pid_t> pids_;
  const Processes processes_;
};

// Finds who registers a region. Regions of the same clients share one owner, and so its
// descriptors. One thread at a time.
RegionService::OwnerOf OwnersOf(const Connections& connections) {
  return [&connections, last = std::make_shared<std::shared_ptr<const UnixClients>>()](
             const Call& call) -> std::shared_ptr<const RegionOwner> {
    if (!absl::StartsWith(call.peer(), "unix:")) return nullptr;
    std::vector<pid_t> pids = connections.UnixProcesses();
    if (*last == nullptr || !(*last)->Are(pids)) {
      *last = std::make_shared<UnixClients>(std::move(pids));
    }
    return *last;
  };
}

}  // namespace

Server::Server(ServerOptions options, const ModelRegistry* models, Executor* executor,
               Observer* observer, const Statistics* statistics, RegionOpener* region_opener)
    : options_(std::move(options)),
      executor_(executor),
      request_log_({.with_peers = options_.log_peers}),
      observers_({observer, &request_log_}),
      admission_(options_.admission),
      regions_(options_.regions, region_opener),
      batcher_(options_.batching, executor, &observers_),
      health_([executor] { return executor->healthy(); }),
      infer_(options_.infer, models, &admission_, executor, &batcher_, &observers_,
             &regions_.registry()),
      control_(ControlOptions(options_, *executor), models, &health_, statistics),
      reflection_(options_.reflection ? std::make_optional<Reflection>() : std::nullopt),
      connections_(options_.log_peers),
      region_service_(&regions_, &active_, OwnersOf(connections_)),
      mlp_service_(models, options_.mlp_reloader, &active_),
      message_watch_(&admission_, &connections_, options_.stall_limit.base),
      flood_watch_(&connections_, &message_watch_),
      router_(
          {&infer_, &active_, &observers_, &request_log_, options_.stall_limit, &message_watch_},
          &control_, &health_,
          {.max_metadata_bytes = options_.max_metadata_bytes,
           .reflection = reflection_.has_value() ? &*reflection_ : nullptr,
           .regions = &region_service_,
           .mlps = &mlp_service_}) {
  health_.SetLoaded(!options_.loads_weights);
}

Server::~Server() = default;

void Server::SetLoaded() {
  health_.SetLoaded(true);
  rpc_->Broadcast(ServerEvent::kHealthChanged);
}

absl::Status Server::Start() {
  RpcServerOptions options = options_.rpc;
  options.accepting_changed = [this](bool accepting) { health_.SetAccepting(accepting); };
  options.busy_waits = [this] { return executor_->caller_wait_time(); };
  auto started = RpcServer::Start(std::move(options), &router_, &connections_);
  if (!started.ok()) return started.status();
  rpc_ = *std::move(started);
  return absl::OkStatus();
}

int Server::ServeUntilStopped(StopSource& stop) {
  if (Await(stop, absl::InfiniteDuration()) == StopReason::kDeviceFault) ExitAfterFault();
  StopBeingReady();
  LOG(INFO, "not ready any more; serving on for {}", absl::FormatDuration(options_.drain_delay));
  if (Await(stop, options_.drain_delay) == StopReason::kDeviceFault) ExitAfterFault();
  return Drain(stop);
}

void Server::StopBeingReady() {
  options_.stopping();
  health_.StopServing();
  rpc_->Broadcast(ServerEvent::kHealthChanged);
}

void Server::StopTakingRequests() {
  admission_.StartDrain();
  rpc_->Broadcast(ServerEvent::kDraining);
}

StopReason Server::Await(StopSource& stop, absl::Duration timeout) {
  const absl::Time end = absl::Now() + timeout;
  while (true) {
    const StopReason reason = stop.Wait(std::min(end - absl::Now(), kFlushInterval));
    request_log_.Flush();
    if (reason != StopReason::kTimeout || absl::Now() >= end) return reason;
  }
}

int Server::Drain(StopSource& stop) {
  StopTakingRequests();
  const int64_t num_left = active_.WaitUntilNone(options_.drain_timeout);
  if (stop.device_failed()) ExitAfterFault();
  if (active_.num_in_work() > 0) {
    ExitAfter(
        [this, num_left] {
          request_log_.Flush();
          LOG(ERROR, "drain timeout of {} passed: {} requests cut off",
              absl::FormatDuration(options_.drain_timeout), num_left);
        },
        kExitFailure);
  }
  request_log_.Flush();
  if (num_left > 0) {
    LOG(WARNING, "drain timeout passed: answers not taken by their callers: {}", num_left);
  }
  rpc_->CloseConnections(kLastWords);
  rpc_->Shutdown(kLastWords);
  LOG(INFO, "drained; exiting");
  return 0;
}

void Server::ExitAfterFault() {
  rpc_->Broadcast(ServerEvent::kHealthChanged);
  StopTakingRequests();
  active_.WaitUntilNone(kLastWords);
  rpc_->CloseConnections(kLastWords);
  rpc_->Shutdown(kLastWords);
  ExitAfter(
      [this] {
        request_log_.Flush();
        LOG(ERROR, "exiting with code {} after a device fault", kExitDeviceFault);
      },
      kExitDeviceFault);
}

}  // namespace swiglu::server
