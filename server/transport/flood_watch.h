// SPDX-License-Identifier: Apache-2.0
//
// Pauses and ends connections that send many bytes but no messages (flood_limit.h). A thread looks
// at all connections again and again. docs/adr/0013 says why.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <thread>
#include <unordered_map>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/connections/connections.h"
#include "server/connections/flood_limit.h"
#include "server/transport/message_watch.h"

namespace swiglu::server {

// Thread-safe.
class FloodWatch {
 public:
  // The shortest rest between two looks. A rest is also at least kRestFactor times as long as the
  // last look, so that thousands of connections take at most a 50th of a core.
  static constexpr std::chrono::milliseconds kInterval{20};
  static constexpr int kRestFactor = 50;

  // `connections` and `messages` must outlive it.
  FloodWatch(Connections* connections, const MessageWatch* messages);
  ~FloodWatch();
  FloodWatch(const FloodWatch&) = delete;
  FloodWatch& operator=(const FloodWatch&) = delete;

 private:
  using Clock = std::chrono::steady_clock;

  // What is remembered of a connection.
  struct Watched {
    FloodLimit limit;
    int64_t round = 0;  // the last round that saw the connection
    bool is_paused = false;
    bool is_ended = false;
  };

  void Run();
  void LookAtAll();

  Connections* const connections_;
  const MessageWatch* const messages_;
  // Only the thread uses these two.
  std::unordered_map<ino_t, Watched> watched_;
  int64_t round_ = 0;

  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace swiglu::server
