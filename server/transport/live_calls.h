// SPDX-License-Identifier: Apache-2.0
//
// The list of live calls, so that all of them can be told of an event.
#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/transport/call.h"

namespace swiglu::server {

// Thread-safe. It is split into shards with a lock each, because every call of every thread is
// added here and later removed.
class LiveCalls {
 public:
  // Returns false, and does nothing, if the call was removed already: the thread that handles its
  // end may be faster than the thread that handles its beginning. REQUIRES: somebody owns `call`
  // until it is removed.
  bool Add(Call& call) {
    Shard& shard = ShardOf(call);
    absl::MutexLock lock(&shard.mutex);
    if (call.place == Call::Place::kRemoved) return false;
    call.place = Call::Place::kListed;
    call.next = shard.first;
    if (shard.first != nullptr) shard.first->previous = &call;
    shard.first = &call;
    return true;
  }

  void Remove(Call& call) {
    Shard& shard = ShardOf(call);
    absl::MutexLock lock(&shard.mutex);
    if (std::exchange(call.place, Call::Place::kRemoved) != Call::Place::kListed) return;
    if (call.next != nullptr) call.next->previous = call.previous;
    (call.previous != nullptr ? call.previous->next : shard.first) = call.next;
  }

  // The calls that are in the list now.
  std::vector<CallPtr> All() {
    std::vector<CallPtr> calls;
    for (Shard& shard : shards_) {
      absl::MutexLock lock(&shard.mutex);
      for (Call* call = shard.first; call != nullptr; call = call->next) {
        calls.push_back(call->shared_from_this());
      }
    }
    return calls;
  }

  bool Has(Call& call) {
    absl::MutexLock lock(&ShardOf(call).mutex);
    return call.place == Call::Place::kListed;
  }

  // Tells every call of `event`, on the calling thread.
  void Deliver(ServerEvent event) {
    for (const CallPtr& call : All()) call->Deliver(event);
  }

 private:
  struct alignas(64) Shard {
    absl::Mutex mutex;
    Call* first ABSL_GUARDED_BY(mutex) = nullptr;
  };

  Shard& ShardOf(Call& call) {
    return shards_[reinterpret_cast<uintptr_t>(&call) / sizeof(Call) % shards_.size()];
  }

  std::array<Shard, 16> shards_;
};

}  // namespace swiglu::server
