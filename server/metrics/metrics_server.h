// SPDX-License-Identifier: Apache-2.0
//
// Serves the /metrics page over HTTP. It does not use prometheus-cpp's Exposer, for three reasons.
// The distributions build the Exposer's HTTP library without IPv6. The Exposer does not say why it
// cannot listen. And it adds series of its own.
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

// What a client can make the server hold.
struct MetricsLimits {
  // Connections at once; past that the oldest is closed. > 0.
  size_t max_connections = 16;
  // How long a connection may last, whatever it is doing. > 0.
  std::chrono::milliseconds connection_time = std::chrono::seconds(10);
};

// Serves from `Create` to its destruction, on one thread of its own.
class MetricsServer {
 public:
  // Listens on `address`, `HOST:PORT` (see `ListenTcp` for its forms and errors); port 0 takes a
  // free one. `page` is called on the server's thread and what it reads must outlive the server.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Create(const std::string& address,
                                                               Page page,
                                                               const MetricsLimits& limits = {});
  ~MetricsServer();
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;

  // The port that it listens on.
  int port() const { return listening_.port; }

 private:
  class Connection;

  MetricsServer(ListenSockets listening, Descriptor wake, Page page, const MetricsLimits& limits);

  // The thread: waits for any socket, then moves each connection on, until `wake_` is written to.
  void Serve();
  // Waits until there is something to do; false when it is time to end.
  bool Wait();
  void Accept();
  // Moves every connection on, and drops those that are done or have had their time.
  void Advance();

  const Page page_;
  const MetricsLimits limits_;
  const ListenSockets listening_;
  const Descriptor wake_;  // an eventfd
  std::thread thread_;

  // For the thread alone.
  std::list<Connection> connections_;  // oldest first
  bool accept_paused_ = false;         // out of descriptors: wait a little before the next attempt
};

}  // namespace swiglu::server
