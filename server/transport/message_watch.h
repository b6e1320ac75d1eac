// SPDX-License-Identifier: Apache-2.0
//
// Follows the messages that calls wait for. Every few milliseconds, a thread looks at how many
// bytes their connections have received, and charges these bytes. If a message cannot go on, the
// thread tells its call. batching/message_ledger.h says when a message cannot go on; docs/adr/0012
// says why the watch exists.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/batching/admission.h"
#include "server/batching/message_ledger.h"
#include "server/connections/connections.h"
#include "server/connections/flood_limit.h"
#include "server/transport/call.h"

namespace swiglu::server {

// Thread-safe. Must outlive its entries.
class MessageWatch {
 public:
  // How often the thread looks.
  static constexpr std::chrono::milliseconds kInterval{10};
  // The thread looks at an idle connection (`MessageLedger::is_idle`) in one round of this many.
  static constexpr int64_t kIdleRounds = 4;

 private:
  struct Connection;

 public:
  // One message that a call awaits, or none. The call's handler owns the entry, and calls only one
  // method of the entry at a time.
  class Entry {
   public:
    Entry() = default;
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;
    ~Entry();

    // Binds the entry to `call`, which owns the handler, and to the connection of `call`. Call this
    // once, before any other method.
    void Bind(MessageWatch* watch, Call* call);
    // The same for a stream of messages.
    void BindStream(MessageWatch* watch, Call* call);
    MessageSource source() const;

    // Begins to await a message. If the message cannot go on, the call gets
    // `ServerEvent::kOverrun`.
    void Begin(Charge reservation, AwaitedKind kind, int64_t max_bytes);
    // The message is whole: returns its charge.
    Charge Arrive(int64_t size_bytes);
    // The message will not come: nothing is charged for it any more.
    void Drop();
    // Like `Drop`, for a message that is refused, whether or not it is awaited now. Also notes that
    // the caller may still send the message.
    void Refuse();
    // Why the message cannot go on. Each reason is returned once.
    std::optional<Overrun> TakeOverrun();

   private:
    friend class MessageWatch;

    // Guarded by the connection's lock while it is awaited.
    struct Message : AwaitedMessage {
      Entry* entry = nullptr;
      std::optional<Overrun> overrun;
    };

    // Ends the wait: calls `end` with the connection's ledger.
    template <typename End>
    void EndWait(End end);

    MessageWatch* watch_ = nullptr;
    Call* call_ = nullptr;
    std::shared_ptr<Connection> connection_;
    bool is_awaiting_ = false;
    bool is_stream_ = false;
    int64_t header_bytes_ = 0;  // of the call; 0 once the ledger has counted them
    Message message_;
  };

  // `stall`: how long a message of a stream may stop halfway. `admission` and `connections` must
  // outlive it.
  MessageWatch(Admission* admission, const Connections* connections, Clock::duration stall);
  ~MessageWatch();

  // Call this for a refused call, whose message nobody will read.
  void CountUnread(const Call& call);

  // The traffic of a peer, without `taken_bytes`. All zero for a peer without calls.
  ConnectionTraffic Traffic(const std::string& peer) const;

 private:
  // A connection that has had calls.
  struct Connection {
    Connection(std::string its_peer, Admission* admission)
        : peer(std::move(its_peer)), ledger(admission, share) {}

    void CountStep() { num_steps.fetch_add(1, std::memory_order_relaxed); }

    const std::string peer;
    const std::shared_ptr<ReceiveShare> share = std::make_shared<ReceiveShare>();
    bool is_measured = false;  // as MessageSource has it; set at the beginning
    std::atomic<int> num_awaited{0};
    std::atomic<int> num_streams{0};     // open streams
    std::atomic<uint64_t> num_steps{0};  // as ConnectionTraffic has it
    absl::Mutex mutex;
    MessageLedger ledger ABSL_GUARDED_BY(mutex);
  };

  static constexpr size_t kFirstSweep = 16;
  struct alignas(64) Shard {
    mutable absl::Mutex mutex;
    std::unordered_map<std::string, std::shared_ptr<Connection>> connections ABSL_GUARDED_BY(mutex);
    // If there are more connections than this, those that have ended are removed.
    size_t sweep_at ABSL_GUARDED_BY(mutex) = kFirstSweep;
  };

  size_t ShardOf(const std::string& peer) const;
  std::shared_ptr<Connection> Find(const Call& call);
  std::optional<uint64_t> ReceivedBytes(const Connection& connection) const {
    return connections_->ReceivedBytes(connection.peer);
  }
  void Sweep(Shard& shard) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.mutex);
  // Looks at the connection if the last look was a while ago.
  void LookIfDue(Connection& connection, Clock::time_point now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(connection.mutex);
  void Wake();
  // The thread.
  void Run();
  void LookAtAll(int64_t round);
  void LookAt(Connection& connection, int64_t round);

  Admission* const admission_;
  const Connections* const connections_;
  const Clock::duration stall_;
  std::array<Shard, 16> shards_;
  std::atomic<int64_t> num_awaited_{0};
  std::atomic<bool> is_asleep_{false};

  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_needed_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace swiglu::server
