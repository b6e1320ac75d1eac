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

// Why nobody waits for `request`, which is past its deadline or cancelled.
absl::Status WhyDropped(const Request& request, Clock::time_point now) {
  if (HasWaitedUntil(request.deadline, request.accepted_at, now)) {
    return absl::DeadlineExceededError("deadline passed before execution");
  }
  return absl::CancelledError("cancelled by the caller before execution");
}

}  // namespace

BatchFormer::~BatchFormer() {
  for (auto& level : queues_) {
    for (auto& extent : level) {
      for (Queue& queue : extent) {
        while (queue.first != nullptr) Remove(*queue.first);
      }
    }
  }
}

void BatchFormer::Add(std::unique_ptr<Request> request) {
  const Clock::time_point accepted_at = request->accepted_at;
  if (request->deadline <= accepted_at || request->cancelled->load(std::memory_order_relaxed)) {
    return Drop(std::move(request), accepted_at);
  }
  const int64_t bytes = InputBytes(*request);
  ModelLoad& load = loads_[request->model->index];
  ++load.num_requests;
  load.bytes += bytes;
  ++num_queued_;
  ++num_queued_of_[static_cast<int>(request->priority)][static_cast<int>(request->extent)];

  auto* const entry = new Entry{std::move(request), next_sequence_++, bytes};
  Queue& queue = QueueOf(*entry->request);
  entry->previous = std::exchange(queue.last, entry);
  (entry->previous == nullptr ? queue.first : entry->previous->next) = entry;
  IndexLatest();
  unindexed_ = entry;
}

void BatchFormer::IndexLatest() {
  if (unindexed_ == nullptr) return;
  Entry* const entry = std::exchange(unindexed_, nullptr);
  if (entry->request->deadline != Clock::time_point::max()) {
    by_deadline_.emplace(std::pair(entry->request->deadline, entry->sequence), entry);
  }
  Entry*& latest = by_caller_[entry->request->cancelled.get()];
  entry->previous_of_caller = std::exchange(latest, entry);
  if (entry->previous_of_caller != nullptr) entry->previous_of_caller->next_of_caller = entry;
}

void BatchFormer::Cancel(const std::atomic<bool>& cancelled, Clock::time_point now) {
  IndexLatest();
  const auto found = by_caller_.find(&cancelled);
  if (found == by_caller_.end()) return;
  for (Entry* entry = found->second; entry != nullptr;) {
    Drop(Remove(*std::exchange(entry, entry->previous_of_caller)), now);
  }
}

void BatchFormer::DropLate(Clock::time_point now) {
  while (FirstDeadline() <= now && !by_deadline_.empty()) {
    Drop(Remove(*by_deadline_.begin()->second), now);
  }
}

FormedBatch BatchFormer::TakeIfReady(Clock::time_point now) {
  // The only one is looked at when it is taken.
  if (num_queued_ > 1) DropLate(now);
  FormedBatch batch;
  Entry* const oldest = Choose(now);
  if (oldest == nullptr) return batch;
  const Priority priority = oldest->request->priority;
  const int model_index = oldest->request->model->index;
  last_extent_ = oldest->request->extent;

  int64_t batch_bytes = 0;
  Fill(QueueOf(priority, last_extent_, model_index), now, batch, batch_bytes);
  if (loads_[model_index].num_requests == 0) return batch;
  Fill(QueueOf(priority, Other(last_extent_), model_index), now, batch, batch_bytes);
  for (const Priority other : kPriorities) {
    if (other == priority) continue;
    for (const Extent extent : kExtents) {
      Fill(QueueOf(other, extent, model_index), now, batch, batch_bytes);
    }
  }
  return batch;
}

std::optional<Clock::time_point> BatchFormer::ReadyAt() const {
  std::optional<Clock::time_point> first;
  for (const auto& level : queues_) {
    for (const auto& extent : level) {
      for (const Queue& queue : extent) {
        if (queue.first == nullptr) continue;
        const Request& front = *queue.first->request;
        const Clock::time_point ready = IsFull(front.model->index)
                                            ? front.accepted_at
                                            : front.accepted_at + options_.max_queue_delay;
        first = std::min(first.value_or(ready), ready);
      }
    }
  }
  return first;
}

Clock::time_point BatchFormer::FirstDeadline() {
  IndexLatest();
  return by_deadline_.empty() ? Clock::time_point::max() : by_deadline_.begin()->first.first;
}

bool BatchFormer::IsFull(int model_index) const {
  return loads_[model_index].num_requests >= options_.max_segments ||
         loads_[model_index].bytes >= options_.max_batch_bytes;
}

BatchFormer::Entry* BatchFormer::OldestReady(Priority priority, Extent extent,
                                             Clock::time_point now) {
  Entry* oldest = nullptr;
  if (num_queued_of_[static_cast<int>(priority)][static_cast<int>(extent)] == 0) return oldest;
  for (int model_index = 0; model_index < kNumModels; ++model_index) {
    Entry* const first = QueueOf(priority, extent, model_index).first;
    if (first == nullptr) continue;
    const bool is_ready = options_.max_queue_delay == Clock::duration::zero() ||
                          first->request->accepted_at + options_.max_queue_delay <= now ||
                          IsFull(model_index);
    if (!is_ready) continue;
    if (oldest == nullptr || first->sequence < oldest->sequence) oldest = first;
  }
  return oldest;
}

BatchFormer::Entry* BatchFormer::Choose(Clock::time_point now) {
  for (const Priority priority : kPriorities) {
    for (const Extent extent : {Other(last_extent_), last_extent_}) {
      Entry* const entry = OldestReady(priority, extent, now);
      if (entry != nullptr) return entry;
    }
  }
  return nullptr;
}

void BatchFormer::Fill(Queue& queue, Clock::time_point now, FormedBatch& batch,
                       int64_t& batch_bytes) {
  while (queue.first != nullptr &&
         static_cast<int>(batch.requests.size()) < options_.max_segments) {
    Entry& first = *queue.first;
    if (first.request->deadline <= now) {
      Drop(Remove(first), now);
      continue;
    }
    if (!batch.requests.empty() && first.bytes > options_.max_batch_bytes - batch_bytes) return;
    batch_bytes += first.bytes;
    batch.requests.push_back(Remove(first));
  }
}

void BatchFormer::Drop(std::unique_ptr<Request> request, Clock::time_point now) {
  absl::Status why = WhyDropped(*request, now);
  dropped_.push_back({std::move(request), std::move(why)});
}

std::unique_ptr<Request> BatchFormer::Remove(Entry& entry) {
  const std::unique_ptr<Entry> owned(&entry);
  std::unique_ptr<Request> request = std::move(entry.request);
  Queue& queue = QueueOf(*request);
  (entry.previous == nullptr ? queue.first : entry.previous->next) = entry.next;
  (entry.next == nullptr ? queue.last : entry.next->previous) = entry.previous;
  if (unindexed_ == &entry) {
    unindexed_ = nullptr;
  } else {
    RemoveFromIndices(entry, *request);
  }

  ModelLoad& load = loads_[request->model->index];
  --load.num_requests;
  load.bytes -= entry.bytes;
  --num_queued_;
  --num_queued_of_[static_cast<int>(request->priority)][static_cast<int>(request->extent)];
  return request;
}

void BatchFormer::RemoveFromIndices(Entry& entry, const Request& request) {
  if (entry.previous_of_caller != nullptr) {
    entry.previous_of_caller->next_of_caller = entry.next_of_caller;
  }
  if (entry.next_of_caller != nullptr) {
    entry.next_of_caller->previous_of_caller = entry.previous_of_caller;
  } else if (entry.previous_of_caller != nullptr) {
    by_caller_[request.cancelled.get()] = entry.previous_of_caller;
  } else {
    by_caller_.erase(request.cancelled.get());
  }
  if (request.deadline != Clock::time_point::max()) {
    by_deadline_.erase({request.deadline, entry.sequence});
  }
}

}  // namespace swiglu::server
