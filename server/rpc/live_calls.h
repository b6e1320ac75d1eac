// SPDX-License-Identifier: Apache-2.0
//
// The calls that are going on, so that all of them can be told something; and how many exist at
// all, so that a shutdown can wait for the last one.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/rpc/call.h"

namespace swiglu::server {

// Thread-safe. In parts with a lock each, since every call of every thread passes here twice.
class LiveCalls {
 public:
  void Add(const CallPtr& call) {
    Shard& shard = ShardOf(call.get());
    absl::MutexLock lock(&shard.mutex);
    shard.calls.emplace(call.get(), call);
  }

  void Remove(Call* call) {
    CallPtr removed;  // let go without the lock
    Shard& shard = ShardOf(call);
    absl::MutexLock lock(&shard.mutex);
    const auto found = shard.calls.find(call);
    if (found == shard.calls.end()) return;
    removed = std::move(found->second);
    shard.calls.erase(found);
  }

  // Tells every call, on this thread.
  void Deliver(ServerEvent event) {
    for (Shard& shard : shards_) {
      std::vector<CallPtr> calls;
      {
        absl::MutexLock lock(&shard.mutex);
        for (const auto& [unused, call] : shard.calls) calls.push_back(call);
      }
      for (const CallPtr& call : calls) call->Deliver(event);
    }
  }

 private:
  struct alignas(64) Shard {
    absl::Mutex mutex;
    std::unordered_map<Call*, CallPtr> calls ABSL_GUARDED_BY(mutex);
  };

  Shard& ShardOf(Call* call) { return shards_[std::hash<Call*>()(call) / 64 % shards_.size()]; }

  std::array<Shard, 16> shards_;
};

}  // namespace swiglu::server
