// SPDX-License-Identifier: Apache-2.0
//
// Chunks that are left, chunks that came back, and the width to which the operation has narrowed.
#include "client/chunk_queue.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace swiglu::client {
namespace {

// Successes after which one more chunk may be under way.
constexpr int kSuccessesToWiden = 8;

// Refusals of a chunk that was alone, after which it is too large rather than the server busy with
// the requests of others.
constexpr int kRefusalsToShrink = 3;

int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

ChunkQueue::ChunkQueue(absl::string_view model, const ChunkPlan& plan, absl::Time deadline)
    : model_(model),
      plan_(plan),
      deadline_(deadline),
      chunk_elements_(plan.chunk_elements),
      most_elements_(plan.chunk_elements),
      num_allowed_(plan.max_under_way) {}

int64_t ChunkQueue::NumLeft() const {
  int64_t num_chunks = DivideUp(plan_.num_elements - next_, chunk_elements_);
  for (const Chunk& chunk : returned_) num_chunks += DivideUp(chunk.count, chunk_elements_);
  return num_chunks;
}

absl::Time ChunkQueue::NextTake(absl::Time now) const {
  if (!status_.ok() || NumLeft() == 0 || num_under_way_ >= num_allowed_) {
    return absl::InfiniteFuture();
  }
  return std::max(now, opens_);
}

absl::optional<Chunk> ChunkQueue::Take(absl::Time now) {
  if (NextTake(now) > now) return absl::nullopt;
  ++num_under_way_;
  Chunk chunk{next_, std::min(chunk_elements_, plan_.num_elements - next_)};
  if (returned_.empty()) {
    next_ += chunk.count;
    return chunk;
  }
  Chunk& returned = returned_.back();
  chunk = {returned.first, std::min(chunk_elements_, returned.count)};
  returned.first += chunk.count;
  returned.count -= chunk.count;
  if (returned.count == 0) returned_.pop_back();
  return chunk;
}

absl::optional<ChunkProgress> ChunkQueue::Succeed(const std::string& weights) {
  --num_under_way_;
  if (num_done_ > 0 && weights != weights_) {
    Stop(absl::AbortedError(
        absl::StrCat("the weights of '", model_, "' changed during the call; try again")));
    return absl::nullopt;
  }
  weights_ = weights;
  num_lone_refusals_ = 0;
  if (++num_successes_ >= kSuccessesToWiden) Widen();
  ++num_done_;
  return ChunkProgress{num_done_, num_done_ + num_under_way_ + NumLeft()};
}

void ChunkQueue::PushBack(const Chunk& chunk, const absl::Status& status, absl::Time opens) {
  Return(chunk);
  if (opens >= deadline_) return Stop(status);
  opens_ = std::max(opens_, opens);
  // What is still under way has its room.
  num_allowed_ = std::max(num_under_way_, 1);
  num_successes_ = 0;
  if (num_under_way_ == 0 && ++num_lone_refusals_ >= kRefusalsToShrink && Halve(chunk.count)) {
    num_lone_refusals_ = 0;
  }
}

void ChunkQueue::Shrink(const Chunk& chunk, const absl::Status& status) {
  Return(chunk);
  if (!Halve(chunk.count)) return Stop(status);
  most_elements_ = chunk_elements_;
}

void ChunkQueue::Fail(const absl::Status& status) {
  --num_under_way_;
  Stop(status);
}

void ChunkQueue::Stop(const absl::Status& status) {
  if (status_.ok()) status_ = status;
}

absl::StatusOr<std::string> ChunkQueue::Result() const {
  if (!status_.ok()) return status_;
  return weights_;
}

void ChunkQueue::Return(const Chunk& chunk) {
  --num_under_way_;
  returned_.push_back(chunk);
}

void ChunkQueue::Widen() {
  num_successes_ = 0;
  if (chunk_elements_ < most_elements_) {
    chunk_elements_ = std::min(2 * chunk_elements_, most_elements_);
  } else if (num_allowed_ < plan_.max_under_way) {
    ++num_allowed_;
  }
}

// Makes chunks at most half of `count`. False if that is not possible.
bool ChunkQueue::Halve(int64_t count) {
  const int64_t half = count / 2 / plan_.least_elements * plan_.least_elements;
  if (half == 0) return false;
  chunk_elements_ = std::min(chunk_elements_, half);
  return true;
}

}  // namespace swiglu::client
