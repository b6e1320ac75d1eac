// SPDX-License-Identifier: Apache-2.0
//
// Listens and accepts, on a thread of its own: it decides how many connections there may be, and
// what happens when descriptors run out. gRPC is handed each accepted connection. docs/adr/0011
// says why.
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
  // `HOST:PORT` or `unix:/path`; port 0 takes a free one.
  std::string address;
  // The permissions of a unix socket's file.
  int unix_socket_mode = 0600;
  // Connections that may be open at once; a further one is closed as soon as it is accepted. >= 1.
  int64_t max_connections = 4096;
  // If a peer acknowledges nothing of the data sent to it for this long, its connection ends. > 0.
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
    // Takes a connection over: `fd` is a non-blocking socket.
    std::function<void(int fd)> take;
    // False: connections cannot be accepted, because there are no more descriptors or no memory.
    // True: they can be accepted again.
    std::function<void(bool accepting)> accepting_changed;
  };

  // Listens; connections wait until `Start`. On error nothing is left behind: INVALID_ARGUMENT (not
  // an address) or FAILED_PRECONDITION (cannot listen there), with the address and the reason.
  static absl::StatusOr<std::unique_ptr<Acceptor>> Listen(AcceptorOptions options);
  // Stops.
  ~Acceptor();

  // Where it listens, with the port that was taken.
  const std::string& address() const { return address_; }

  // Accepts from here on. Once.
  void Start(Callbacks callbacks);

  // Stops accepting and listening, and removes a unix socket's file. Idempotent, one thread at a
  // time.
  void Stop();

 private:
  Acceptor(AcceptorOptions options, ListenSockets listening);

  void Run();
  // Accepts some of the connections that wait at `listener`. False if there are not enough
  // descriptors or memory.
  bool AcceptFrom(int listener);
  // Whether one more connection may be open. If not, counts and logs the refusal.
  bool HasRoom();

  const AcceptorOptions options_;
  ListenSockets listening_;
  std::string address_;
  Descriptor stopping_;  // an eventfd
  Callbacks callbacks_;
  std::thread thread_;

  // The thread's own. Upper bound of open connections: those at the last count plus those accepted
  // since.
  int64_t most_open_ = 0;
  absl::Time counted_at_ = absl::InfinitePast();
};

}  // namespace swiglu::server
