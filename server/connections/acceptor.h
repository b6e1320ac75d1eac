// SPDX-License-Identifier: Apache-2.0
//
// Listens, and accepts connections on a thread of its own. It limits the number of connections, and
// handles a lack of descriptors. It passes accepted connections to gRPC. docs/adr/0011 says why.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/base/descriptor.h"
#include "server/base/listen_socket.h"

namespace swiglu::server {

struct AcceptorOptions {
  // `HOST:PORT` or `unix:/path`. Port 0 takes a free port.
  std::string address;
  // The permissions of a unix socket's file.
  int unix_socket_mode = 0600;
  // The most connections open at once. Any further connection is closed once it is accepted. >= 1.
  int64_t max_connections = 4096;
  // A connection ends if sent data stays unacknowledged for this long. > 0.
  absl::Duration acknowledge_timeout = absl::Seconds(30);
};

// Thread-safe.
class Acceptor {
 public:
  // Functions that the owner of the acceptor provides. All of them are called on the acceptor's
  // thread.
  struct Callbacks {
    // How many connections are open now.
    std::function<int64_t()> num_open;
    // A connection was closed because there were too many.
    std::function<void()> refused;
    // Takes over a connection. `fd` is its non-blocking socket.
    std::function<void(int fd)> take;
    // False: connections cannot be accepted, for lack of descriptors or memory. True: they can be
    // accepted again.
    std::function<void(bool accepting)> accepting_changed;
  };

  // Listens. Connections wait until `Start`. On error no socket stays open. Errors:
  // INVALID_ARGUMENT (not an address) or FAILED_PRECONDITION (cannot listen there), with the
  // address and the reason.
  static absl::StatusOr<std::unique_ptr<Acceptor>> Listen(AcceptorOptions options);
  // Calls `Stop`.
  ~Acceptor();

  // The address on which it listens, with the port that it took.
  const std::string& address() const { return address_; }

  // Accepts connections from now on. Call it once.
  void Start(Callbacks callbacks);

  // Stops accepting and listening, and removes the file of a unix socket. Idempotent. Only one
  // thread at a time may call it.
  void Stop();

 private:
  Acceptor(AcceptorOptions options, ListenSockets listening);

  void Run();
  // Accepts some of the connections that wait at `listener`. Returns false if there are too few
  // descriptors or too little memory.
  bool AcceptFrom(int listener);
  // How long no connection may be accepted, because the last count left no room and is too new to
  // count again. 0 or less: one may be.
  int WaitForCountMs() const;
  // Whether one more connection may be open. If not, reports and logs the refusal.
  bool HasRoom();

  const AcceptorOptions options_;
  ListenSockets listening_;
  std::string address_;
  Descriptor stopping_;  // an eventfd
  Callbacks callbacks_;
  std::thread thread_;

  // Only the thread uses these two. `most_open_` is an upper bound on the open connections: those
  // at the last count, plus those accepted since then. `counted_at_` is the time of that count.
  int64_t most_open_ = 0;
  absl::Time counted_at_ = absl::InfinitePast();
};

}  // namespace swiglu::server
