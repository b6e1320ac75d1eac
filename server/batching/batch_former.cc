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

// Gradients are those of one request, so no other request may be in its batch.
bool RunsAlone(const Request& request) { return request.segment.has_gradients(); }

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
  const std::vector<Group*> groups = active_;  // a copy, because `Remove` changes `active_`
  for (Group* group : groups) {
    for (auto& level : group->queues) {
      for (Queue& queue : level) {
        while (queue.first != nullptr) Remove(*queue.first);
      }
    }
  }
}

BatchFormer::Placed& BatchFormer::PlacedAt(const Placement& placement) {
  for (Placed& placed : placed_) {
    if (placed.placement == placement) return placed;
  }
  return placed_.emplace_back(Placed{placement, {}});
}

BatchFormer::Group& BatchFormer::GroupOf(const Request& request) {
  auto& groups = PlacedAt(request.placement).groups;
  const auto index = static_cast<size_t>(request.model->index);
  if (index >= groups.size()) groups.resize(index + 1);
  if (groups[index] == nullptr) {
    groups[index] =
        std::make_unique<Group>(Group{.model = request.model, .placement = request.placement});
  }
  return *groups[index];
}

void BatchFormer::Activate(Group& group) {
  group.position = active_.size();
  active_.push_back(&group);
}

void BatchFormer::Deactivate(Group& group) {
  Group* const last = active_.back();
  active_[group.position] = last;
  last->position = group.position;
  active_.pop_back();
}

void BatchFormer::Add(std::unique_ptr<Request> request) {
  const Clock::time_point accepted_at = request->accepted_at;
  if (request->deadline <= accepted_at || request->cancelled->load(std::memory_order_relaxed)) {
    return Drop(std::move(request), accepted_at);
  }
  const int64_t bytes = InputBytes(*request);
  Group& group = GroupOf(*request);
  if (group.num_requests == 0) Activate(group);
  ++group.num_requests;
  if (RunsAlone(*request)) ++group.num_alone;
  group.bytes += bytes;
  ++num_queued_;
  ++num_queued_of_[static_cast<int>(request->priority)][static_cast<int>(request->extent)];

  auto* const entry = new Entry{std::move(request), &group, next_sequence_++, bytes};
  Queue& queue = group.queue(entry->request->priority, entry->request->extent);
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

FormedBatch BatchFormer::TakeIfReady(Clock::time_point now, HasLane has_lane) {
  FormedBatch batch;
  if (!HasRunnable(has_lane)) return batch;
  // The only one is looked at when it is taken.
  if (num_queued_ > 1) DropLate(now);
  Entry* const oldest = Choose(now, has_lane);
  if (oldest == nullptr) return batch;
  const Priority priority = oldest->request->priority;
  const Extent extent = oldest->request->extent;
  Group& group = *oldest->group;
  // Resident requests are never cut, and take no turn of the others.
  if (!group.placement.is_resident) last_extent_ = extent;

  const int64_t max_bytes = MaxBytes(group);
  Fill(group.queue(priority, extent), now, max_bytes, batch);
  if (group.num_requests == 0) return batch;
  Fill(group.queue(priority, Other(extent)), now, max_bytes, batch);
  for (const Priority other : kPriorities) {
    if (other == priority) continue;
    for (const Extent either : kExtents) {
      Fill(group.queue(other, either), now, max_bytes, batch);
    }
  }
  return batch;
}

std::optional<Clock::time_point> BatchFormer::ReadyAt(HasLane has_lane) const {
  std::optional<Clock::time_point> first;
  for (const Group* group : active_) {
    if (!HasLaneFor(*group, has_lane)) continue;
    const Clock::duration delay =
        IsFull(*group) ? Clock::duration::zero() : options_.max_queue_delay;
    for (const auto& level : group->queues) {
      for (const Queue& queue : level) {
        if (queue.first == nullptr) continue;
        const Clock::time_point ready = queue.first->request->accepted_at + delay;
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

bool BatchFormer::HasRunnable(HasLane has_lane) const {
  return std::any_of(active_.begin(), active_.end(),
                     [has_lane](const Group* group) { return HasLaneFor(*group, has_lane); });
}

bool BatchFormer::IsFull(const Group& group) const {
  return group.num_requests >= options_.max_segments || group.bytes >= MaxBytes(group) ||
         group.num_alone > 0;
}

BatchFormer::Entry* BatchFormer::OldestReady(Priority priority, Extent extent,
                                             Clock::time_point now, HasLane has_lane) {
  Entry* oldest = nullptr;
  if (num_queued_of_[static_cast<int>(priority)][static_cast<int>(extent)] == 0) return oldest;
  for (Group* group : active_) {
    Entry* const first = group->queue(priority, extent).first;
    if (first == nullptr || !HasLaneFor(*group, has_lane)) continue;
    const bool is_ready = options_.max_queue_delay == Clock::duration::zero() ||
                          first->request->accepted_at + options_.max_queue_delay <= now ||
                          IsFull(*group);
    if (!is_ready) continue;
    if (oldest == nullptr || first->sequence < oldest->sequence) oldest = first;
  }
  return oldest;
}

BatchFormer::Entry* BatchFormer::Choose(Clock::time_point now, HasLane has_lane) {
  for (const Priority priority : kPriorities) {
    for (const Extent extent : {Other(last_extent_), last_extent_}) {
      Entry* const entry = OldestReady(priority, extent, now, has_lane);
      if (entry != nullptr) return entry;
    }
  }
  return nullptr;
}

void BatchFormer::Fill(Queue& queue, Clock::time_point now, int64_t max_bytes, FormedBatch& batch) {
  while (queue.first != nullptr &&
         static_cast<int>(batch.requests.size()) < options_.max_segments) {
    Entry& first = *queue.first;
    if (first.request->deadline <= now) {
      Drop(Remove(first), now);
      continue;
    }
    if (!batch.requests.empty()) {
      if (RunsAlone(*first.request) || RunsAlone(*batch.requests[0])) return;
      if (first.bytes > max_bytes - batch.bytes) return;
      if (first.request->weights != batch.requests[0]->weights) return;
    }
    batch.bytes += first.bytes;
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
  Group& group = *entry.group;
  Queue& queue = group.queue(request->priority, request->extent);
  (entry.previous == nullptr ? queue.first : entry.previous->next) = entry.next;
  (entry.next == nullptr ? queue.last : entry.next->previous) = entry.previous;
  if (unindexed_ == &entry) {
    unindexed_ = nullptr;
  } else {
    RemoveFromIndices(entry, *request);
  }

  if (RunsAlone(*request)) --group.num_alone;
  --group.num_requests;
  if (group.num_requests == 0) Deactivate(group);
  group.bytes -= entry.bytes;
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
