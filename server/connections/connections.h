// SPDX-License-Identifier: Apache-2.0
//
// The connections that the server has accepted. gRPC hides them, so this class works on their
// sockets. It knows the peer of each connection, counts the bytes that each connection receives,
// and ends connections. It does not know what the bytes mean.
#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/base/descriptor.h"

namespace swiglu::server {

// Why a connection was ended.
enum class EndReason : uint8_t { kResets, kFrames };
inline constexpr int kNumEndReasons = 2;

// Returns `peer`, a name from gRPC (`grpc::ServerContext::peer`), in a form for people:
// `ipv4:10.0.0.1:1234`, `ipv6:[::1]:1234`. For a peer on a unix socket, this is `unix:` and the
// path that the peer's socket is bound to. Usually that socket has no path, and the text is only
// `unix:`. `Connections::Describe` says more about such a peer.
std::string ReadablePeer(absl::string_view peer);

// gRPC owns the sockets and may close them at any time. So this class remembers the descriptor and
// the inode of each socket, and leaves a descriptor alone that now belongs to another file.
//
// Peers have the names that gRPC gives them in `ServerContext::peer()`: "ipv4:10.0.0.1:4711",
// "ipv6:%5B::1%5D:4711". All peers of a unix socket have the same name, "unix:", so the methods
// below treat them as one peer. Thread-safe.
class Connections {
 public:
  // How many bytes gRPC has read from a connection.
  struct Taken {
    std::string peer;
    ino_t inode = 0;  // identifies the connection while it is open
    uint64_t bytes = 0;
  };

  // `log_peers`: whether the log may show who a peer is.
  explicit Connections(bool log_peers = true) : log_peers_(log_peers) {}

  // Adds a connection. `fd` is its socket, which the caller still owns.
  void Add(int fd);

  // Counts a connection that was closed because too many were open.
  void CountRefused() { num_refused_.fetch_add(1, std::memory_order_relaxed); }
  int64_t num_refused() const { return num_refused_.load(std::memory_order_relaxed); }

  // The number of open connections. Takes a third of a microsecond per connection.
  int64_t NumOpen();

  // How many bytes the server has received from the peer since its connection began. nullopt if
  // that is unknown: for a unix socket, or if the connection has ended.
  std::optional<uint64_t> ReceivedBytes(absl::string_view peer) const;

  // The bytes that gRPC has read from each open TCP connection. Takes about two microseconds per
  // connection.
  std::vector<Taken> TakenFromAll() const;

  // Who the peer is, as text for a log: its address, or "unix:pid=12,uid=1000" for a peer on a unix
  // socket. If several processes have connections on the unix socket, a '+' separates them.
  std::string Describe(absl::string_view peer) const;

  // The ids of the processes at the other end of open connections on the unix socket, ascending,
  // each once. The id is 0 for a process that this process cannot see.
  std::vector<pid_t> UnixProcesses() const;

  // Pauses the peer's connection, or lets it go on. While it is paused, the kernel drops the data
  // that the peer sends, and the peer sends it again later. What has come before can still be read,
  // what we send arrives, and the peer can end the connection. Returns false if there is no such
  // connection, or no free descriptor.
  bool SetPaused(absl::string_view peer, bool paused);

  // Ends the peer's connection: cancels its calls, throws away what the peer has sent, and sends
  // the peer a reset. Logs and counts the end. Ends the connections of all peers of a unix socket
  // together. Returns the number of connections that it ended. A connection that gRPC has not
  // closed yet counts only the first time.
  int End(absl::string_view peer, EndReason reason);
  int64_t num_ended(EndReason reason) const {
    return num_ended_[static_cast<size_t>(reason)].load(std::memory_order_relaxed);
  }

  // Closes the sending direction of every connection as soon as its peer has acknowledged all data
  // written so far, or at `deadline`. Data that is still unacknowledged at `deadline` may be lost.
  // A call that has no answer yet fails at the client with UNAVAILABLE. Later writes fail with a
  // broken pipe. Blocks until `deadline` at most. REQUIRES: no connection is added any more, and
  // the server is about to end. docs/adr/0010 says why.
  void Close(absl::Time deadline);

  // Ends every connection in both directions, at once. This also ends writes that wait for their
  // peers: after `Close`, such a write to a unix socket would go on waiting until the peer reads.
  // Data that a peer has not acknowledged may be lost. REQUIRES: as `Close`.
  void EndAll();

 private:
  struct Connection {
    int fd = -1;
    ino_t inode = 0;
    // The process at the other end of a unix socket.
    pid_t pid = 0;
    uid_t uid = 0;
    bool is_ended = false;  // `End` has ended it
  };

  static bool IsOpen(const Connection& connection);
  static std::optional<uint64_t> ReceivedBytes(const Connection& connection);
  // Duplicates the descriptor of the socket. Returns none if the connection has ended.
  static Descriptor Duplicate(const Connection& connection);
  // The open connections of `peer`.
  std::vector<Connection> Find(absl::string_view peer) const;
  // Notes that `End` has ended the connection of `peer`. Returns false if it was noted before.
  bool MarkEnded(absl::string_view peer, const Connection& connection);
  // All connections, even those that have ended but are not forgotten yet.
  std::vector<Connection> All() const;
  // Forgets the connections that have ended.
  void Sweep() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const bool log_peers_;
  std::atomic<int64_t> num_refused_{0};
  std::array<std::atomic<int64_t>, kNumEndReasons> num_ended_{};
  mutable absl::Mutex mutex_;
  std::unordered_multimap<std::string, Connection> connections_ ABSL_GUARDED_BY(mutex_);
  // With this many connections, `Add` calls `Sweep`.
  size_t sweep_at_ ABSL_GUARDED_BY(mutex_) = 64;
};

}  // namespace swiglu::server
