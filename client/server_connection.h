// SPDX-License-Identifier: Apache-2.0
//
// The connection to servers that MakeConnection returns: it puts the decorators together.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "client/call_streams.h"
#include "client/channel.h"
#include "client/coalescing_connection.h"
#include "client/connection_pool.h"
#include "client/event_queue.h"
#include "client/fork_guard.h"
#include "client/health_watch.h"
#include "client/hedging_connection.h"
#include "client/model_connection.h"
#include "client/retry.h"
#include "client/retrying_connection.h"
#include "client/splitting_connection.h"
#include "swiglu/connection.h"

namespace swiglu::client {

// An inference goes through splitting, coalescing, hedging if it is on, retrying, and out by the
// model connection.
// Thread-safe.
class ServerConnection final : public Connection {
 public:
  // Throws std::system_error if a thread cannot start. REQUIRES: the addresses and the options are
  // checked, and every default is resolved.
  ServerConnection(const std::vector<std::string>& addresses, const Options& options);
  // Waits until all calls have ended. In a child of the process that made it, frees nothing.
  ~ServerConnection() override;

  void StartInfer(const Inference& inference, const CallContext& context, Done done) override;
  // The calling thread takes the events of the call, which saves a switch of threads.
  CallResult Infer(const Inference& inference, const CallContext& context) override;
  // What fails with UNAVAILABLE goes to another server at once, if there is one.
  absl::StatusOr<std::string> Control(absl::string_view rpc, const std::string& request,
                                      const TimeLimit& limit) override;

  int num_servers() const override { return parts_->pool.num_servers(); }
  bool has_one_server() const override {
    return num_servers() == 1 && !parts_->pool.IsGroupOfServers(0);
  }

 private:
  // What a call that blocks uses.
  struct Seat {
    explicit Seat(ConnectionPool* pool) : streams(pool, &queue) {}

    EventQueue queue;
    CallStreams streams;
  };

  // All of it, so that a child can leave it alone.
  struct Parts {
    Parts(const std::vector<std::string>& addresses, const Options& options);

    // Looks after the connections while no call is under way.
    void LookAfter();
    void CloseIdleStreams();

    const Options options;
    ConnectionPool pool;
    const bool uses_streams;
    absl::Mutex mutex;
    // What no call uses now. There are at most as many as calls ever blocked at once.
    std::vector<std::unique_ptr<Seat>> idle_seats ABSL_GUARDED_BY(mutex);
    int64_t num_calls ABSL_GUARDED_BY(mutex) = 0;  // that were started and have not ended
    HealthWatch health;
    RetryBudget budget;
    EventThreads threads;
    ModelConnection model;
    RetryingConnection retrying;
    HedgingConnection hedging;
    CoalescingConnection coalescing;
    SplittingConnection splitting;
  };

  std::unique_ptr<Seat> TakeSeat();
  void GiveSeat(std::unique_ptr<Seat> seat);
  void Start(const Inference& inference, const CallContext& context, Done done);

  const ForkGuard fork_guard_;
  std::unique_ptr<Parts> parts_;
};

}  // namespace swiglu::client
