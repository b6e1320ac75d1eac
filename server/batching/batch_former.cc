// SPDX-License-Identifier: Apache-2.0
//
// Which queued requests form the next batch. See the header for the rules.
#include "server/batching/batch_former.h"

#include <algorithm>
#include <utility>

namespace swiglu::server {
namespace {

constexpr Priority kPriorities[kNumPriorities] = {Priority::kHigh, Priority::kNormal,
                                                  Priority::kLow};
constexpr Extent kExtents[kNumExtents] = {Extent::kWhole, Extent::kChunk};

Extent Other(Extent extent) { return extent == Extent::kWhole ? Extent::kChunk : Extent::kWhole; }

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
  const int model_index = request->model->index;
  const int64_t bytes = InputBytes(*request);
  ++loads_[model_index].num_requests;
  loads_[model_index].bytes += bytes;
  ++num_queued_;
  ++num_queued_of_[static_cast<int>(request->priority)][static_cast<int>(request->extent)];
  Queue& queue = QueueOf(request->priority, request->extent, model_index);
  queue.push_back({next_sequence_++, bytes, std::move(request)});
}

FormedBatch BatchFormer::TakeIfReady(Clock::time_point now, std::vector<DroppedRequest>& dropped) {
  FormedBatch batch;
  Queue* const first = Choose(now, dropped);
  if (first == nullptr) return batch;
  const Request& oldest = *first->front().request;
  const Priority priority = oldest.priority;
  const int model_index = oldest.model->index;
  last_extent_ = oldest.extent;

  int64_t batch_bytes = 0;
  Fill(*first, now, batch, batch_bytes, dropped);
  if (loads_[model_index].num_requests == 0) return batch;
  Fill(QueueOf(priority, Other(last_extent_), model_index), now, batch, batch_bytes, dropped);
  for (const Priority other : kPriorities) {
    if (other == priority) continue;
    for (const Extent extent : kExtents) {
      Fill(QueueOf(other, extent, model_index), now, batch, batch_bytes, dropped);
    }
  }
  return batch;
}

std::optional<Clock::time_point> BatchFormer::ReadyAt() const {
  std::optional<Clock::time_point> first;
  for (const auto& level : queues_) {
    for (const auto& extent : level) {
      for (const Queue& queue : extent) {
        if (queue.empty()) continue;
        const Request& front = *queue.front().request;
        const Clock::time_point ready = IsFull(front.model->index)
                                            ? front.accepted_at
                                            : front.accepted_at + options_.max_queue_delay;
        first = std::min(first.value_or(ready), ready);
      }
    }
  }
  return first;
}

bool BatchFormer::IsFull(int model_index) const {
  return loads_[model_index].num_requests >= options_.max_segments ||
         loads_[model_index].bytes >= options_.max_batch_bytes;
}

BatchFormer::Queue* BatchFormer::OldestReady(Priority priority, Extent extent,
                                             Clock::time_point now,
                                             std::vector<DroppedRequest>& dropped) {
  Queue* oldest = nullptr;
  if (num_queued_of_[static_cast<int>(priority)][static_cast<int>(extent)] == 0) return oldest;
  for (int model_index = 0; model_index < kNumModels; ++model_index) {
    Queue& queue = QueueOf(priority, extent, model_index);
    if (queue.empty()) continue;
    DropDeadFront(queue, now, dropped);
    if (queue.empty()) continue;
    const bool is_ready = options_.max_queue_delay == Clock::duration::zero() ||
                          queue.front().request->accepted_at + options_.max_queue_delay <= now ||
                          IsFull(model_index);
    if (!is_ready) continue;
    if (oldest == nullptr || queue.front().sequence < oldest->front().sequence) oldest = &queue;
  }
  return oldest;
}

BatchFormer::Queue* BatchFormer::Choose(Clock::time_point now,
                                        std::vector<DroppedRequest>& dropped) {
  for (const Priority priority : kPriorities) {
    for (const Extent extent : {Other(last_extent_), last_extent_}) {
      Queue* const queue = OldestReady(priority, extent, now, dropped);
      if (queue != nullptr) return queue;
    }
  }
  return nullptr;
}

void BatchFormer::Fill(Queue& queue, Clock::time_point now, FormedBatch& batch,
                       int64_t& batch_bytes, std::vector<DroppedRequest>& dropped) {
  DropDeadFront(queue, now, dropped);
  while (!queue.empty() && static_cast<int>(batch.requests.size()) < options_.max_segments) {
    const int64_t bytes = queue.front().bytes;
    if (!batch.requests.empty() && bytes > options_.max_batch_bytes - batch_bytes) return;
    batch_bytes += bytes;
    batch.requests.push_back(PopFront(queue));
    DropDeadFront(queue, now, dropped);
  }
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
  Entry entry = std::move(queue.front());
  queue.pop_front();
  ModelLoad& load = loads_[entry.request->model->index];
  --load.num_requests;
  load.bytes -= entry.bytes;
  --num_queued_;
  const Request& request = *entry.request;
  --num_queued_of_[static_cast<int>(request.priority)][static_cast<int>(request.extent)];
  return std::move(entry.request);
}

}  // namespace swiglu::server
