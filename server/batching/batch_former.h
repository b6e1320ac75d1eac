// SPDX-License-Identifier: Apache-2.0
//
// The batch former: decides which queued requests go together, and when. A pure state machine: no
// threads, no clock of its own, no locks. `batcher.h` wraps it.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "server/batching/request.h"

namespace swiglu::server {

struct BatchFormerOptions {
  // The most requests in one batch. >= 1.
  int max_segments = 256;
  // The most input bytes in one batch of several requests; a larger request travels alone. Keeps a
  // batch short, so that what comes next does not wait long. >= 1.
  int64_t max_batch_bytes = int64_t{4} << 20;
  // How long a request may wait for company before a batch that is not full closes; 0: not at all.
  Clock::duration max_queue_delay{0};
};

// What the former hands out: requests of one operation and dtype that run together.
struct FormedBatch {
  using Requests = absl::InlinedVector<std::unique_ptr<Request>, 1>;
  Requests requests;
};

// A request that was not put into a batch because nobody waits for it any longer.
struct DroppedRequest {
  std::unique_ptr<Request> request;
  absl::Status status;  // CANCELLED or DEADLINE_EXCEEDED
};

// Queues requests and forms batches. Not thread-safe.
//
// The next batch belongs to the most urgent level that has one ready. Within a level, whole
// requests and chunks take turns, and the oldest comes first. What else is queued of the same model
// fills the batch, in the same order.
class BatchFormer {
 public:
  explicit BatchFormer(BatchFormerOptions options) : options_(options) {}

  // Queues `request`.
  void Add(std::unique_ptr<Request> request);

  // The next batch; empty when none is ready. Without a delay, one is as soon as anything is
  // queued. Requests that are cancelled, or whose deadline is at or before `now`, are moved to
  // `dropped` instead when they come up.
  FormedBatch TakeIfReady(Clock::time_point now, std::vector<DroppedRequest>& dropped);

  // When a batch is ready even if nothing more comes; none when nothing is queued.
  std::optional<Clock::time_point> ReadyAt() const;

  bool empty() const { return num_queued_ == 0; }

 private:
  struct Entry {
    int64_t sequence;  // order of arrival over all queues
    int64_t bytes;     // of its inputs
    std::unique_ptr<Request> request;
  };
  using Queue = std::deque<Entry>;
  // What is queued of one model, over all of its queues.
  struct ModelLoad {
    int num_requests = 0;
    int64_t bytes = 0;
  };

  Queue& QueueOf(Priority priority, Extent extent, int model_index) {
    return queues_[static_cast<int>(priority)][static_cast<int>(extent)][model_index];
  }
  // A batch of that model would not grow any more.
  bool IsFull(int model_index) const;
  // The queue, of that level and extent, whose front is the oldest that is ready, or nullptr.
  Queue* OldestReady(Priority priority, Extent extent, Clock::time_point now,
                     std::vector<DroppedRequest>& dropped);
  // The queue to begin the next batch with, or nullptr.
  Queue* Choose(Clock::time_point now, std::vector<DroppedRequest>& dropped);
  // Moves what fits from `queue` into the batch.
  void Fill(Queue& queue, Clock::time_point now, FormedBatch& batch, int64_t& batch_bytes,
            std::vector<DroppedRequest>& dropped);
  // Drops dead requests off the front, so that the front, if any, is live.
  void DropDeadFront(Queue& queue, Clock::time_point now, std::vector<DroppedRequest>& dropped);
  std::unique_ptr<Request> PopFront(Queue& queue);

  const BatchFormerOptions options_;
  // By priority, extent and Model::index.
  std::array<std::array<std::array<Queue, kNumModels>, kNumExtents>, kNumPriorities> queues_;
  std::array<ModelLoad, kNumModels> loads_;  // by Model::index
  // How many are queued, by priority and extent.
  std::array<std::array<int, kNumExtents>, kNumPriorities> num_queued_of_{};
  Extent last_extent_ = Extent::kChunk;  // of what began the last batch
  int64_t next_sequence_ = 0;
  int64_t num_queued_ = 0;
};

}  // namespace swiglu::server
