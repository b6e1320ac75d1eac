// SPDX-License-Identifier: Apache-2.0
//
// The server as one object. It builds its parts in the order of their dependencies, on an executor
// that its owner passes in. It serves, drains, and ends after a device fault.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/batching/admission.h"
#include "server/batching/batcher.h"
#include "server/connections/connections.h"
#include "server/core/executor.h"
#include "server/core/mlp_reloader.h"
#include "server/core/model_registry.h"
#include "server/core/observer.h"
#include "server/core/statistics.h"
#include "server/inference/infer_service.h"
#include "server/lifecycle.h"
#include "server/regions/region_thread.h"
#include "server/service/active_requests.h"
#include "server/service/control_service.h"
#include "server/service/health.h"
#include "server/service/mlp_service.h"
#include "server/service/reflection.h"
#include "server/service/region_service.h"
#include "server/service/request_log.h"
#include "server/service/router.h"
#include "server/service/stall_limit.h"
#include "server/transport/flood_watch.h"
#include "server/transport/message_watch.h"
#include "server/transport/rpc_server.h"

namespace swiglu::server {

struct ServerOptions {
  // The version that ServerMetadata returns.
  std::string version;
  // Whether the executor computes on GPUs. ModelConfig returns this.
  bool on_gpu = false;
  AdmissionOptions admission;
  BatchFormerOptions batching;
  InferServiceOptions infer;
  StallLimit stall_limit;
  // Whether the log names the peers of requests and connections.
  bool log_peers = true;
  int64_t max_metadata_bytes = 32 << 10;
  // Whether tools may ask for the services and their messages.
  bool reflection = false;
  // Which regions clients may register.
  RegionLimits regions = {};
  // Loads weights when clients ask for it. nullptr: clients may not.
  MlpReloader* mlp_reloader = nullptr;
  // Called when the server stops being ready for good, before it drains.
  std::function<void()> stopping = [] {};
  // Whether weights have to be loaded. If so, the server is not ready before `SetLoaded`.
  bool loads_weights = false;
  // The server itself sets `rpc.accepting_changed`.
  RpcServerOptions rpc;
  // `drain_delay`: how long after the first stop signal the server still takes requests, although
  // it says that it is not ready. `drain_timeout`: how long accepted requests may take after that.
  absl::Duration drain_delay = absl::ZeroDuration();
  absl::Duration drain_timeout = absl::Seconds(30);
};

// Thread-safe, except `Start`, `ServeUntilStopped` and the destructor.
class Server {
 public:
  // Builds the parts. The server does not listen yet. It offers `models`, all of which `executor`
  // can compute. `observer` hears of every request, batch and device error, and must pass all of
  // this on to `statistics`. `region_opener` opens regions for the executor; it may be nullptr if
  // `options` enable no regions. The objects behind the pointers must outlive the server.
  Server(ServerOptions options, const ModelRegistry* models, Executor* executor, Observer* observer,
         const Statistics* statistics, RegionOpener* region_opener = nullptr);
  // Shuts the server down at once if it still serves.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Starts to listen and to serve. Call it once. FAILED_PRECONDITION if it cannot listen on the
  // address; the error says why.
  absl::Status Start();

  // All weights are there. REQUIRES: the server has started, and has not ended.
  void SetLoaded();

  // Serves until `stop` returns a signal, then drains. Returns 0, the exit code of the process. In
  // two cases it ends the process instead. One is a device fault (kExitDeviceFault). In the other,
  // requests still have no answer after `drain_timeout` (kExitFailure). In both cases no destructor
  // runs, because the device must not be touched again. REQUIRES: `Start` has returned OK.
  int ServeUntilStopped(StopSource& stop);

  // First step of a drain: the server says that it is not ready, and goes on serving.
  void StopBeingReady();
  // Second step: the server takes no new requests, and tells its calls so.
  void StopTakingRequests();

  // The parts, for metrics and tests.
  Admission& admission() { return admission_; }
  Batcher& batcher() { return batcher_; }
  Health& health() { return health_; }
  Connections& connections() { return connections_; }
  const RegionRegistry& regions() const { return regions_.registry(); }
  ActiveRequests& active() { return active_; }
  InferService& infer() { return infer_; }
  const MessageWatch& message_watch() const { return message_watch_; }
  // REQUIRES: `Start` has returned OK.
  RpcServer& rpc() { return *rpc_; }
  const ServerOptions& options() const { return options_; }

 private:
  // Like `StopSource::Wait`, but meanwhile flushes the request log.
  StopReason Await(StopSource& stop, absl::Duration timeout);
  // Drains the server. Returns the exit code.
  int Drain(StopSource& stop);
  // Waits until the requests that are already failing are answered, then ends the process. No
  // destructor runs, so no device memory is freed.
  [[noreturn]] void ExitAfterFault();

  const ServerOptions options_;
  const Executor* const executor_;
  RequestLog request_log_;
  ObserverList observers_;  // the owner's observer, and the request log
  Admission admission_;
  RegionThread regions_;  // outlives every request
  Batcher batcher_;
  Health health_;
  InferService infer_;
  const ControlService control_;
  ActiveRequests active_;
  std::optional<Reflection> reflection_;
  Connections connections_;
  const RegionService region_service_;
  const MlpService mlp_service_;
  MessageWatch message_watch_;
  FloodWatch flood_watch_;
  const Router router_;
  std::unique_ptr<RpcServer> rpc_;
};

}  // namespace swiglu::server
