// SPDX-License-Identifier: Apache-2.0
//
// Asks several servers to tell when they stop taking calls and when they take them again
// (`grpc.health.v1.Health/Watch`), and tells the pool. So a server that drains is left before it
// refuses a call.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/connection_pool.h"
#include "client/event_queue.h"

namespace swiglu::client {

// Keeps one stream to each server that has a connection, but none to a group of servers (IsGroup).
// It has no thread: its events happen when somebody looks after it. A server that has no such
// service, or whose connection is lost, counts as one of unknown health, which is not avoided.
// Thread-safe. `pool` must outlive it.
class HealthWatch {
 public:
  explicit HealthWatch(ConnectionPool* pool);
  // Cancels the streams, and waits for their ends.
  ~HealthWatch();
  HealthWatch(const HealthWatch&) = delete;
  HealthWatch& operator=(const HealthWatch&) = delete;

  // Takes what the servers have told, and begins the streams that may begin. Does not block.
  void LookAfter();
  // The same, if nobody has looked for some milliseconds. For every call.
  void LookAfterIfDue();

 private:
  class Stream;

  // A server and its stream, if there is one.
  struct Watched {
    std::unique_ptr<Stream> stream;
    absl::Time next = absl::InfinitePast();  // when a stream may begin
  };

  void LookAfter(int server, absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  ConnectionPool* const pool_;
  std::atomic<int64_t> looked_ms_{0};  // when somebody looked
  absl::Mutex mutex_;
  EventQueue queue_;
  // By server. Empty if there is one server alone, which nobody can avoid.
  std::vector<Watched> watched_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace swiglu::client
