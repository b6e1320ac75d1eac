// SPDX-License-Identifier: Apache-2.0
//
// The gRPC server: an address, and I/O threads with one completion queue each. Every call, of
// whatever method, comes in generically, headers first, and goes to the router. Nothing here knows
// what a call means.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/generic/async_generic_service.h"
#include "grpcpp/server.h"
#include "server/rpc/call.h"
#include "server/rpc/router.h"

namespace swiglu::server {

struct RpcServerOptions {
  // `HOST:PORT` or `unix:/path`; port 0 takes a free one.
  std::string address;
  // Completion-queue threads. 1 gives the lowest latency, 4 the most small requests, 8 suit large
  // payloads. >= 1.
  int io_threads = 4;
};

// Serves from `Start` on. Thread-safe.
class RpcServer {
 public:
  // Listens on the address. On error (FAILED_PRECONDITION: the address cannot be had, and why)
  // nothing is left behind. `router` must outlive the server.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(RpcServerOptions options,
                                                          const Router* router);
  // Shuts down at once if `Shutdown` was not called.
  ~RpcServer();
  RpcServer(const RpcServer&) = delete;
  RpcServer& operator=(const RpcServer&) = delete;

  // Where it listens, with the port that was taken.
  const std::string& address() const { return address_; }

  // Tells every live call. Returns before they have heard it. REQUIRES: `Shutdown` was not called.
  void Broadcast(ServerEvent event);

  // Takes no new call; gives live ones `grace` to end, then cancels them; ends the threads. Blocks
  // until every call is gone, which needs every accepted request to be done. Idempotent.
  void Shutdown(absl::Duration grace);

 private:
  class Worker;

  explicit RpcServer(const Router* router);

  const Router* const router_;
  std::string address_;
  std::string socket_path_;  // of a unix socket, to be removed at the end
  grpc::AsyncGenericService service_;
  std::unique_ptr<grpc::Server> server_;
  std::vector<std::unique_ptr<Worker>> workers_;
  bool shut_down_ = false;
};

}  // namespace swiglu::server
