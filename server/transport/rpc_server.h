// SPDX-License-Identifier: Apache-2.0
//
// The gRPC server: it listens on an address, and its I/O threads poll completion queues. It accepts
// calls of all methods in the same way, when their headers arrive, and passes them to the router.
// Nothing here knows what a call means.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/generic/async_generic_service.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "server/connections/acceptor.h"
#include "server/connections/connections.h"
#include "server/connections/reset_limit.h"
#include "server/transport/call.h"
#include "server/transport/io_threads.h"
#include "server/transport/live_calls.h"

namespace swiglu::server {

// What a connection may do, and how long it may live. gRPC enforces these limits.
struct ConnectionLimits {
  // The age, give or take a tenth, at which the server tells a connection to end. Its peer then
  // connects anew, so load balancers can spread the peers. Zero: never.
  absl::Duration max_age = absl::ZeroDuration();
  // How long the calls of such a connection may go on before they are cut off. > 0.
  absl::Duration max_age_grace = absl::Minutes(5);
  // If no byte has come for this long, the server asks whether the peer is there; zero: never.
  absl::Duration keepalive_time = absl::Seconds(30);
  // If the peer does not answer that question, or takes no byte, for this long, the connection is
  // closed. > 0.
  absl::Duration keepalive_timeout = absl::Seconds(30);
  // The shortest interval between a peer's pings. A peer that pings at exactly this interval may
  // ping a little early, because timers and networks are not exact. > 0.
  absl::Duration min_ping_interval = absl::Seconds(10);
};

struct RpcServerOptions {
  // `HOST:PORT` or `unix:/path`; port 0 takes a free one.
  std::string address;
  // The permissions of a unix socket's file.
  int unix_socket_mode = 0600;
  // Connections that may be open at once. >= 1.
  int64_t max_connections = 4096;
  // Called when connections can no longer be accepted for lack of descriptors or memory, and when
  // they can be accepted again. Afterwards live calls get kHealthChanged. It runs on a thread of
  // the server. May be empty.
  std::function<void(bool accepting)> accepting_changed = {};
  // The most I/O threads that poll or do long work at once. The load decides how many poll. >= 1.
  int io_threads = 4;
  // How long I/O threads have waited busily until now: see IoThreads.
  std::function<std::chrono::nanoseconds()> busy_waits = IoThreads::NoBusyWaits;
  // How many bytes gRPC may hold of messages that are being received. If there are more, gRPC
  // breaks calls off. This is the last line of defence: normally admission refuses earlier. >= 1.
  int64_t receive_quota_bytes = int64_t{1} << 30;
  // How often live calls get kTick. > 0.
  absl::Duration tick = absl::Seconds(1);
  ConnectionLimits connections = {};
};

// The interval to set in gRPC so that peers may ping at `interval`. It is somewhat shorter, so that
// no ping of such a peer counts as too early.
absl::Duration PingIntervalWithSlack(absl::Duration interval);

// Serves from `Start` on. Thread-safe.
class RpcServer final : private Call::Home {
 public:
  // Listens on the address. FAILED_PRECONDITION if it cannot; the error says why, and nothing is
  // left behind. `router` and `connections` must outlive the server.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(RpcServerOptions options,
                                                          const CallRouter* router,
                                                          Connections* connections);
  // Shuts down at once if `Shutdown` was not called.
  ~RpcServer() override;
  RpcServer(const RpcServer&) = delete;
  RpcServer& operator=(const RpcServer&) = delete;

  // The address on which it listens, with the actual port.
  const std::string& address() const { return acceptor_->address(); }

  // Tells every live call of `event`. Later calls are told of a drain, too.
  void Broadcast(ServerEvent event);

  // Ends the connections, within `grace`, in these steps:
  // - Takes no new connection.
  // - Waits until live calls have ended.
  // - Waits until the peers have received what was written to them, then ends every connection.
  //
  // Calls that arrive meanwhile fail with UNAVAILABLE, like all calls during a drain. Without these
  // steps, gRPC would answer them with CANCELLED in `Shutdown`. REQUIRES: calls have been told of
  // the drain, and `Shutdown` is called next.
  void CloseConnections(absl::Duration grace);

  // Takes no new calls, gives live calls `grace` to end, cancels the remaining calls, ends the
  // remaining connections, and ends the threads. Blocks until every call is gone, so every accepted
  // request has to end. No peer can hold it up. Idempotent.
  void Shutdown(absl::Duration grace);

 private:
  RpcServer(const CallRouter* router, Connections* connections);

  // Call::Home.
  std::unique_ptr<CallHandler> OnAccepted(Call& call) override;
  void OnGone(Call& call) override;
  std::string DescribePeer(absl::string_view peer) override { return connections_->Describe(peer); }
  void OnDestroyed(IoQueue* queue) override;

  // The caller of `call` has reset it. Ends the caller's connection after too many resets.
  void CountReset(const Call& call);
  // Hands accepted connections to gRPC from here on.
  void StartAccepting(std::function<void(bool accepting)> accepting_changed);
  // Hands one connection over to gRPC. It runs on an I/O thread, because gRPC also parses on this
  // thread what the peer has already sent.
  void HandOver(int fd);
  // Shuts gRPC down, with all its connections. Cancels at `deadline` the calls that are left then.
  void ShutDownLibrary(absl::Time deadline);
  // Waits for one more call.
  void PostAccept();
  // Tells live calls of every tick, until the shutdown.
  void TickUntilShutdown(absl::Duration tick);

  const CallRouter* const router_;
  Connections* const connections_;
  grpc::AsyncGenericService service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> handover_;  // to gRPC
  std::unique_ptr<IoThreads> threads_;
  LiveCalls calls_;
  std::atomic<bool> draining_{false};
  std::thread ticker_;
  std::unique_ptr<Acceptor> acceptor_;

  absl::Mutex resets_mutex_;
  ResetLimit resets_ ABSL_GUARDED_BY(resets_mutex_);

  // Calls that exist: they wait for headers, are live, or are over but still owned by a request
  // that is not done. Connections that are being handed over count, too.
  std::atomic<int64_t> num_calls_{0};
  absl::Mutex mutex_;
  bool shut_down_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace swiglu::server
