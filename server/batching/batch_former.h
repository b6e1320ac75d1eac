// SPDX-License-Identifier: Apache-2.0
//
// The batch former: decides which queued requests go together, and when. A pure state machine: no
// threads, no clock of its own, no locks. `batcher.h` wraps it.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "server/batching/request.h"

namespace swiglu::server {

struct BatchFormerOptions {
  // The most requests in one batch. >= 1.
  int max_segments = 256;
  // The most input bytes in one batch of several requests; a larger request travels alone. Keeps a
  // batch short, so that what comes next does not wait long. >= 1.
  int64_t max_batch_bytes = int64_t{16} << 20;
};

// What the former hands out: requests of one operation and dtype that run together, oldest first.
struct FormedBatch {
  std::vector<std::unique_ptr<Request>> requests;
};

// A request that was not put into a batch because nobody waits for it any longer.
struct DroppedRequest {
  std::unique_ptr<Request> request;
  absl::Status status;  // CANCELLED or DEADLINE_EXCEEDED
};

// Queues requests by model and forms batches, oldest request first. Not thread-safe.
class BatchFormer {
 public:
  explicit BatchFormer(BatchFormerOptions options) : options_(options) {}

  // Queues `request`.
  void Add(std::unique_ptr<Request> request);

  // The next batch: the oldest live request and whatever fits beside it, of the same model, in
  // order of arrival. Empty when nothing is queued. Requests that are cancelled, or whose deadline
  // is at or before `now`, are moved to `dropped` instead when they come up. Never waits for
  // company.
  FormedBatch TakeIfReady(Clock::time_point now, std::vector<DroppedRequest>& dropped);

  bool empty() const { return num_queued_ == 0; }

 private:
  struct Entry {
    int64_t sequence;  // order of arrival over all models
    std::unique_ptr<Request> request;
  };
  using Queue = std::deque<Entry>;

  // Drops dead requests off the front, so that the front, if any, is live.
  void DropDeadFront(Queue& queue, Clock::time_point now, std::vector<DroppedRequest>& dropped);
  std::unique_ptr<Request> PopFront(Queue& queue);

  const BatchFormerOptions options_;
  std::array<Queue, kNumModels> queues_;  // by Model::index
  int64_t next_sequence_ = 0;
  int64_t num_queued_ = 0;
};

}  // namespace swiglu::server
