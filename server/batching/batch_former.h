// SPDX-License-Identifier: Apache-2.0
//
// The batch former decides which queued requests run together, and when. It is a pure state machine
// without threads, clock or locks. `batcher.h` wraps it.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/functional/function_ref.h"
#include "server/batching/request.h"

namespace swiglu::server {

struct BatchFormerOptions {
  // The most requests in one batch. >= 1.
  int max_segments = 256;
  // The most input bytes in a batch of several requests. A request with more input bytes runs in a
  // batch of its own. The limit keeps batches short, so that the next one starts soon. >= 1.
  int64_t max_batch_bytes = int64_t{4} << 20;
  // Replaces max_batch_bytes for requests whose tensors are all in a device's memory. That memory
  // is some 40 times as fast as the bus. >= 1.
  int64_t max_resident_batch_bytes = int64_t{64} << 20;
  // How long a request may wait for others to fill its batch. After that, its batch is ready even
  // if it is not full. 0: requests do not wait.
  Clock::duration max_queue_delay{0};
};

// What the former hands out: requests of one model and placement that run together.
struct FormedBatch {
  using Requests = absl::InlinedVector<std::unique_ptr<Request>, 1>;
  Requests requests;
  int64_t bytes = 0;  // of their inputs
};

// A request that left the queue without a batch, because no client waits for its answer any longer.
struct DroppedRequest {
  std::unique_ptr<Request> request;
  absl::Status status;  // CANCELLED or DEADLINE_EXCEEDED
};

// Queues requests and forms batches. Not thread-safe.
//
// A request leaves its queue when a batch takes it, at its deadline, or when its caller cancels it.
// The time to remove a request, from any position, grows with the logarithm of the queue's length.
//
// The caller says which requests have a free lane: those of a model and a placement, by their
// bytes. The others wait, and hold up none. The next batch begins with a request of the most urgent
// level that has a ready request. Within a level, whole requests and chunks take turns, and the
// oldest request comes first. Queued requests of the same model, weights and placement fill the
// batch: first those of the same level and extent, then the others of that level, then those of the
// other levels by urgency. A request that wants gradients of weights shares no batch, so neither it
// nor what is queued with it waits for company.
class BatchFormer {
 public:
  // Whether a lane is free for queued requests that may run together, from their model, their
  // placement and the bytes of their inputs. More bytes never lose a lane.
  using HasLane = absl::FunctionRef<bool(const Model&, const Placement&, int64_t bytes)>;

  explicit BatchFormer(BatchFormerOptions options) : options_(options), placed_(1) {}

  ~BatchFormer();
  BatchFormer(const BatchFormer&) = delete;
  BatchFormer& operator=(const BatchFormer&) = delete;

  // Queues `request`. Drops it if its deadline had passed at `accepted_at`, or if it is cancelled.
  void Add(std::unique_ptr<Request> request);

  // Drops the queued requests whose `Request::cancelled` points to `cancelled`. The status of such
  // a request is DEADLINE_EXCEEDED if its caller waited until the deadline, else CANCELLED.
  void Cancel(const std::atomic<bool>& cancelled, Clock::time_point now);

  // Drops the queued requests whose deadline is at or before `now`.
  void DropLate(Clock::time_point now);

  // Returns the requests that were dropped since the last call.
  std::vector<DroppedRequest> TakeDropped() { return std::exchange(dropped_, {}); }

  // Takes the next batch of the requests that have a lane. No request is in it whose deadline has
  // passed. Returns an empty batch if none is ready. Without a delay, a batch is ready as soon as a
  // request is queued.
  FormedBatch TakeIfReady(Clock::time_point now, HasLane has_lane);

  // When the next batch of the requests that have a lane will be ready if no request is added.
  // nullopt if no request that has a lane is queued.
  std::optional<Clock::time_point> ReadyAt(HasLane has_lane) const;

  // The earliest deadline of the queued requests. `max()` if none of them has a deadline.
  Clock::time_point FirstDeadline();

  bool empty() const { return num_queued_ == 0; }

 private:
  struct Group;
  // A queued request with its neighbours in two lists.
  struct Entry {
    std::unique_ptr<Request> request;
    Group* group;
    int64_t sequence;           // order of arrival over all queues
    int64_t bytes;              // of its inputs
    Entry* previous = nullptr;  // in the same queue
    Entry* next = nullptr;
    Entry* previous_of_caller = nullptr;  // with the same `Request::cancelled`
    Entry* next_of_caller = nullptr;
  };
  struct Queue {
    Entry* first = nullptr;
    Entry* last = nullptr;
  };
  // What may run in one batch: requests of one model and one placement.
  struct Group {
    const Model* model = nullptr;
    Placement placement = {};
    // By priority and extent.
    std::array<std::array<Queue, kNumExtents>, kNumPriorities> queues = {};
    // The totals of these queues.
    int num_requests = 0;
    int64_t bytes = 0;
    int num_alone = 0;  // requests that share no batch
    // Its position in `active_`, as long as it has requests.
    size_t position = 0;

    Queue& queue(Priority priority, Extent extent) {
      return queues[static_cast<int>(priority)][static_cast<int>(extent)];
    }
  };

  // The groups of one placement, by Model::index. A group is made at its first request and never
  // removed.
  struct Placed {
    Placement placement = {};
    std::vector<std::unique_ptr<Group>> groups;
  };

  Placed& PlacedAt(const Placement& placement);
  Group& GroupOf(const Request& request);
  // Puts `group` on the list `active_`, or takes it off.
  void Activate(Group& group);
  void Deactivate(Group& group);
  int64_t MaxBytes(const Group& group) const {
    return MaxBatchBytes(*group.model, group.placement.is_resident
                                           ? options_.max_resident_batch_bytes
                                           : options_.max_batch_bytes);
  }
  static bool HasLaneFor(const Group& group, HasLane has_lane) {
    return has_lane(*group.model, group.placement, group.bytes);
  }
  // Whether a request is queued that has a lane.
  bool HasRunnable(HasLane has_lane) const;
  // Whether the queued requests of that group fill a batch.
  bool IsFull(const Group& group) const;
  // The oldest ready request of that level and extent that has a lane, or nullptr.
  Entry* OldestReady(Priority priority, Extent extent, Clock::time_point now, HasLane has_lane);
  // The first request of the next batch, or nullptr.
  Entry* Choose(Clock::time_point now, HasLane has_lane);
  // Moves the requests that fit from `queue` into the batch, and drops late ones.
  void Fill(Queue& queue, Clock::time_point now, int64_t max_bytes, FormedBatch& batch);
  // Adds the latest request to the indices by deadline and by caller.
  void IndexLatest();
  void Drop(std::unique_ptr<Request> request, Clock::time_point now);
  // Removes `entry` from its queue and from both indices, and deletes it. Returns its request.
  std::unique_ptr<Request> Remove(Entry& entry);
  void RemoveFromIndices(Entry& entry, const Request& request);

  const BatchFormerOptions options_;
  // The first is host memory. A placement is added at its first request and never removed.
  std::vector<Placed> placed_;
  // The groups that have requests, in any order. There may be hundreds of models, so whoever looks
  // for a request visits only these groups.
  std::vector<Group*> active_;
  // The latest request, as long as it is not in the two indices below. Most requests leave before a
  // lookup needs these indices, so they are updated late.
  Entry* unindexed_ = nullptr;
  // The requests that have a deadline, by deadline and sequence number.
  absl::btree_map<std::pair<Clock::time_point, int64_t>, Entry*> by_deadline_;
  // The latest request of each caller, by `Request::cancelled`.
  absl::flat_hash_map<const std::atomic<bool>*, Entry*> by_caller_;
  std::vector<DroppedRequest> dropped_;
  // The number of queued requests, by priority and extent.
  std::array<std::array<int, kNumExtents>, kNumPriorities> num_queued_of_{};
  // Of the first request of the last batch that was not resident.
  Extent last_extent_ = Extent::kChunk;
  int64_t next_sequence_ = 0;
  int64_t num_queued_ = 0;
};

}  // namespace swiglu::server
