// SPDX-License-Identifier: Apache-2.0
//
// The connections to one server or several, and the choice of one for a message.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/server_choice.h"
#include "grpcpp/channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "swiglu/connection.h"
#include "swiglu/credentials.h"

namespace swiglu::client {

// A channel of a pool, with a connection of its own.
struct PooledChannel {
  int server = 0;       // its number in the pool
  std::string address;  // of that server
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<grpc::GenericStub> stub;
  int64_t pending_bytes = 0;  // bytes of the requests under way, guarded by the pool's lock
  int64_t num_pending = 0;    // requests under way, guarded by the pool's lock
  std::atomic<bool> is_used{false};
  std::atomic<int> num_streams{0};  // that are open for calls (CallStreams)
  bool is_lost = false;  // whether the last request found no connection, guarded by the pool's lock
};

// What became of a request.
struct RequestEnd {
  bool is_answered = false;  // by the server, with a result or an error
  bool is_lost = false;      // there was no connection
  // The advice of the server, if it refused the request.
  absl::optional<absl::Duration> pushback = absl::nullopt;
};

// What a server says about itself.
enum class ServerHealth { kUnknown, kServing, kNotServing };

// A fixed number of channels to each address. Each opens its connection when it is first used. The
// servers are alike: each call goes to any of them, over the connection with the fewest request
// bytes under way. If there is a choice, a server is avoided that has no open connection, that says
// that it is not serving, or that pushes back, for as long as it says, at most for a minute.
// Thread-safe.
class ConnectionPool final : public ServerChoice {
 public:
  // REQUIRES: CheckAddress of each address is OK, there is at least one, and `num_connections`, of
  // each, is 1 or more.
  ConnectionPool(const std::vector<std::string>& addresses, int num_connections,
                 const Credentials& credentials);

  // Takes a channel for a request of so many bytes. Of servers that are alike in all else, one
  // outside of `tried` is taken.
  PooledChannel* Acquire(int64_t bytes, const ServerSet& tried);
  // Gives it back.
  void Release(PooledChannel* channel, int64_t bytes, const RequestEnd& end);

  // Whether none of several servers is connected, but one may be soon. Begins to connect.
  bool IsConnecting();

  // Connects again what was connected once. Does not block.
  void Reconnect();

  // A channel to a server that has an open connection; nullptr if none has.
  std::shared_ptr<grpc::Channel> ConnectedChannel(int server) const;
  void SetHealth(int server, ServerHealth health);

  int num_servers() const override { return static_cast<int>(addresses_.size()); }
  bool HasOther(const ServerSet& tried) override;
  absl::Duration TimeUntilOpen() override;
  void AvoidIfSilent(int server, absl::Time since) override;

  // Whether the server stands for several (IsGroup).
  bool IsGroupOfServers(int server) const;
  // All addresses, with commas between them.
  std::string AddressesText() const;

 private:
  // How much a channel is to be avoided.
  enum class Rank { kReady, kConnecting, kSilent, kPushesBack, kNotServing, kLost };

  // Begins to connect if there is no connection.
  Rank RankOf(const PooledChannel& channel, absl::Time now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::vector<std::string> addresses_;
  absl::Mutex mutex_;
  // By server: when its pushback ends, when it last answered, and until when it counts as silent.
  std::vector<absl::Time> opens_ ABSL_GUARDED_BY(mutex_);
  std::vector<absl::Time> answered_ ABSL_GUARDED_BY(mutex_);
  std::vector<absl::Time> silent_until_ ABSL_GUARDED_BY(mutex_);
  std::vector<ServerHealth> health_ ABSL_GUARDED_BY(mutex_);  // by server
  // Their number and their channels never change. Neighbours belong to different servers.
  std::vector<PooledChannel> channels_;
  size_t turn_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace swiglu::client
