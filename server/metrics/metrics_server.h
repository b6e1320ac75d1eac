// SPDX-License-Identifier: Apache-2.0
//
// Serves the /metrics page over HTTP. It does not use prometheus-cpp's Exposer, for three reasons.
// Linux distributions build the Exposer's HTTP library without IPv6. The Exposer does not say why
// it cannot listen. And the Exposer adds series of its own.
#pragma once

#include <chrono>
#include <cstddef>
#include <list>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "server/base/listen_socket.h"
#include "server/metrics/http_answer.h"

namespace swiglu::server {

// Limits on what clients of the metrics page can make the server hold.
struct MetricsLimits {
  // The most connections open at once. A further one closes the oldest. > 0.
  size_t max_connections = 16;
  // How long a connection may last, even if it is in use. > 0.
  std::chrono::milliseconds connection_time = std::chrono::seconds(10);
};

// Serves from `Create` until the destructor, on one thread of its own.
class MetricsServer {
 public:
  // Listens on `address` (`ListenTcp` describes its forms and errors). Calls `page` on the server's
  // thread. Everything that `page` reads must outlive the server.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Create(const std::string& address,
                                                               Page page,
                                                               const MetricsLimits& limits = {});
  ~MetricsServer();
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;

  // The port on which the server listens.
  int port() const { return listening_.port; }

 private:
  class Connection;

  MetricsServer(ListenSockets listening, Descriptor wake, Page page, const MetricsLimits& limits);

  // The thread. Waits for a socket, then continues each connection, until `wake_` is written to.
  void Serve();
  // Waits until there is work. Returns false if the thread must end.
  bool Wait();
  void Accept();
  // Continues every connection. Drops those that are closed or have reached the time limit.
  void Advance();

  const Page page_;
  const MetricsLimits limits_;
  const ListenSockets listening_;
  const Descriptor wake_;  // an eventfd
  std::thread thread_;

  // Only the thread uses the members below.
  std::list<Connection> connections_;  // oldest first
  bool accept_paused_ = false;         // accept() has failed for lack of resources: wait
};

}  // namespace swiglu::server
