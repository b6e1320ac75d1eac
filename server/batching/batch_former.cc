// SPDX-License-Identifier: Apache-2.0
//
// Which queued requests form the next batch. See the header for the rules.
#include "server/batching/batch_former.h"

#include <utility>

namespace swiglu::server {
namespace {

int64_t InputBytes(const Request& request) {
  return request.segment.num_elements * ElementBytes(request.model->dtype) *
         static_cast<int64_t>(request.model->inputs.size());
}

// OK while somebody waits for the answer.
absl::Status Liveness(const Request& request, Clock::time_point now) {
  if (request.deadline <= now) {
    return absl::DeadlineExceededError("deadline passed before execution");
  }
  if (request.cancelled->load(std::memory_order_relaxed)) {
    return absl::CancelledError("cancelled by the caller before execution");
  }
  return absl::OkStatus();
}

}  // namespace

void BatchFormer::Add(std::unique_ptr<Request> request) {
  Queue& queue = queues_[request->model->index];
  queue.push_back({next_sequence_++, std::move(request)});
  ++num_queued_;
}

FormedBatch BatchFormer::TakeIfReady(Clock::time_point now, std::vector<DroppedRequest>& dropped) {
  Queue* oldest = nullptr;
  for (Queue& queue : queues_) {
    DropDeadFront(queue, now, dropped);
    if (queue.empty()) continue;
    if (oldest == nullptr || queue.front().sequence < oldest->front().sequence) oldest = &queue;
  }
  FormedBatch batch;
  if (oldest == nullptr) return batch;

  int64_t batch_bytes = 0;
  while (!oldest->empty() && static_cast<int>(batch.requests.size()) < options_.max_segments) {
    const int64_t bytes = InputBytes(*oldest->front().request);
    if (!batch.requests.empty() && bytes > options_.max_batch_bytes - batch_bytes) break;
    batch_bytes += bytes;
    batch.requests.push_back(PopFront(*oldest));
    DropDeadFront(*oldest, now, dropped);
  }
  return batch;
}

void BatchFormer::DropDeadFront(Queue& queue, Clock::time_point now,
                                std::vector<DroppedRequest>& dropped) {
  while (!queue.empty()) {
    absl::Status status = Liveness(*queue.front().request, now);
    if (status.ok()) return;
    dropped.push_back({PopFront(queue), std::move(status)});
  }
}

std::unique_ptr<Request> BatchFormer::PopFront(Queue& queue) {
  std::unique_ptr<Request> request = std::move(queue.front().request);
  queue.pop_front();
  --num_queued_;
  return request;
}

}  // namespace swiglu::server
