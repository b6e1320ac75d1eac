// SPDX-License-Identifier: Apache-2.0
//
// The connections to one server or several, and the one kind of call that the library makes on
// them: a unary, synchronous call with bytes as request and answer.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/channel_arguments.h"
#include "grpcpp/support/slice.h"

namespace swiglu::client {

// The metadata that announces the size of a request's message to the server before the message
// arrives.
inline constexpr char kRequestBytesKey[] = "swiglu-request-bytes";

// Counts how many slices over borrowed memory gRPC still holds. gRPC drops them when the kernel has
// taken the bytes, which may be after the call has ended. Thread-safe. Must outlive its slices.
class Loan {
 public:
  // A slice over `bytes` without a copy. REQUIRES: `bytes` is not empty.
  grpc::Slice Lend(absl::Span<const std::byte> bytes);

  // Whether gRPC has released every slice. If so, nobody but the caller uses the memory.
  bool IsRepaid() const { return num_lent_.load(std::memory_order_acquire) == 0; }

 private:
  static void TakeBack(void* loan);

  std::atomic<int> num_lent_{0};
};

// A message to send, as a list of slices. `loan` counts the slices that borrow their memory.
struct OutgoingMessage {
  void Append(grpc::Slice slice);

  std::vector<grpc::Slice> slices;
  int64_t size_bytes = 0;
  Loan* loan = nullptr;  // nullptr if no slice borrows memory
};

// The time limit of an operation: its length, and the time at which it ends. It begins when this
// object is constructed. All calls of the operation share it.
struct TimeLimit {
  explicit TimeLimit(absl::Duration its_timeout)
      : timeout(its_timeout), deadline(absl::Now() + its_timeout) {}

  absl::Duration timeout;
  absl::Time deadline;
};

// What came of a call.
struct CallOutcome {
  absl::StatusOr<grpc::ByteBuffer> answer;
  // The advice of a server that failed the call, how long to wait before the next try. Negative if
  // the call must not be tried again.
  absl::optional<absl::Duration> pushback = absl::nullopt;
  int server = 0;  // the number of the server that was called
};

// Some of the servers of a pool.
class ServerSet {
 public:
  void Add(int server) { bits_ |= uint64_t{1} << server; }
  bool Has(int server) const { return (bits_ >> server & 1) != 0; }

 private:
  uint64_t bits_ = 0;
};

// The most servers of a pool.
inline constexpr int kMaxServers = 64;

// OK if `address` is HOST:PORT or unix:/path. Otherwise an error that says what is wrong.
absl::Status CheckAddress(absl::string_view address);

// Splits addresses at commas, so the path of a socket has none. The error is that of CheckAddress
// for the first bad one, or says that one is there twice, or that there are more than kMaxServers.
absl::StatusOr<std::vector<std::string>> SplitAddresses(absl::string_view addresses);

// A channel to `address` with a connection of its own. The channel carries messages of any size,
// and uses neither retries nor proxies. `args` are its further settings.
std::shared_ptr<grpc::Channel> MakeChannel(absl::string_view address,
                                           grpc::ChannelArguments args = {});

// How a thread waits for an event of a completion queue.
enum class Wait { kSleep, kSpin };

// Waits for the next event of `queue`, as CompletionQueue::Next does, or polls without sleeping.
// False if the queue is shut down and has no more events.
bool NextEvent(grpc::CompletionQueue& queue, Wait wait, void** tag, bool* ok);

// A fixed number of channels to each address. Each has a connection of its own, which opens when it
// is first used. The servers are alike: each call goes to any of them, over the connection with the
// fewest request bytes under way. If there is a choice, a server without an open connection is
// avoided, and one that pushes back for as long as it says, at most for a minute. Thread-safe.
class ConnectionPool {
 public:
  // `wait` is how a call waits for its answer. REQUIRES: CheckAddress of each address is OK, there
  // is at least one, and `num_connections`, of each, is 1 or more.
  ConnectionPool(const std::vector<std::string>& addresses, int num_connections, Wait wait);
  // REQUIRES: no call is in progress.
  ~ConnectionPool();
  ConnectionPool(const ConnectionPool&) = delete;
  ConnectionPool& operator=(const ConnectionPool&) = delete;

  // Calls `method`, the full path of an RPC method. Blocks until there is an answer or an error,
  // and until gRPC has released every borrowed slice of the request. Returns the server's own
  // errors. UNAVAILABLE, with the address in the message, if there is no connection.
  // DEADLINE_EXCEEDED when `limit` has passed; if it passed before this call, nothing is sent. Of
  // servers that are alike in all else, one outside of `tried` gets the call.
  CallOutcome Call(const std::string& method, OutgoingMessage request, const TimeLimit& limit,
                   const ServerSet& tried = {});

  int num_servers() const { return static_cast<int>(servers_.size()); }

  // Whether a server outside of `tried` is not avoided now.
  bool HasOther(const ServerSet& tried);

  // How long until the first of several servers that push back may be called again. Infinite if
  // none pushes back, or if there is one server alone.
  absl::Duration TimeUntilOpen();

 private:
  struct Server {
    std::string address;
    absl::Time opens = absl::InfinitePast();  // when its pushback ends, guarded by mutex_
  };
  // How much a connection is to be avoided.
  enum class Rank { kReady, kConnecting, kPushesBack, kLost };
  struct Connection {
    Server* server;
    std::shared_ptr<grpc::Channel> channel;
    std::unique_ptr<grpc::GenericStub> stub;
    int64_t pending_bytes = 0;  // bytes of the requests under way, guarded by mutex_
    int64_t num_pending = 0;    // requests under way, guarded by mutex_
  };

  // Acquire takes a connection and a queue for a call, and Release gives them back.
  std::pair<Connection*, std::unique_ptr<grpc::CompletionQueue>> Acquire(int64_t bytes,
                                                                         const ServerSet& tried);
  void Release(Connection* connection, int64_t bytes, std::unique_ptr<grpc::CompletionQueue> queue);
  int NumberOf(const Connection& connection) const {
    return static_cast<int>(connection.server - servers_.data());
  }
  // Begins to connect if there is no connection.
  Rank RankOf(const Connection& connection, absl::Time now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  CallOutcome ToFailure(const grpc::Status& status, const Connection& connection,
                        const grpc::ClientContext& context, const TimeLimit& limit) const;
  absl::Status Late(absl::string_view address, const TimeLimit& limit) const;
  std::string AddressesText() const;

  const Wait wait_;
  absl::Mutex mutex_;
  std::vector<Server> servers_;  // its size and the addresses never change
  // Their number and their channels never change. Neighbours belong to different servers.
  std::vector<Connection> connections_;
  size_t turn_ ABSL_GUARDED_BY(mutex_) = 0;
  // Completion queues that no call uses now. There are at most as many as calls ever ran at once.
  std::vector<std::unique_ptr<grpc::CompletionQueue>> idle_queues_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace swiglu::client
