// SPDX-License-Identifier: Apache-2.0
//
// Chunks that are left, chunks that came back, and the width to which the operation has narrowed.
#include "client/chunk_queue.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

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

bool ChunkQueue::HasEnded() const {
  return !status_.ok() || exception_ || (NumLeft() == 0 && num_under_way_ == 0);
}

int64_t ChunkQueue::NumLeft() const {
  int64_t num_chunks = DivideUp(plan_.num_elements - next_, chunk_elements_);
  for (const Chunk& chunk : returned_) num_chunks += DivideUp(chunk.count, chunk_elements_);
  return num_chunks;
}

absl::optional<Chunk> ChunkQueue::Take() {
  absl::MutexLock lock(&mutex_);
  while (true) {
    if (HasEnded()) return absl::nullopt;
    if (NumLeft() == 0 || num_under_way_ >= num_allowed_) {
      changed_.Wait(&mutex_);
    } else if (absl::Now() < opens_) {
      changed_.WaitWithTimeout(&mutex_, opens_ - absl::Now());
    } else {
      break;
    }
  }
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

absl::optional<ChunkProgress> ChunkQueue::Succeed(const Chunk&, const std::string& weights) {
  absl::MutexLock lock(&mutex_);
  --num_under_way_;
  if (num_done_ > 0 && weights != weights_) {
    FailLocked(absl::AbortedError(
        absl::StrCat("the weights of '", model_, "' changed during the call; try again")));
    return absl::nullopt;
  }
  weights_ = weights;
  num_lone_refusals_ = 0;
  if (++num_successes_ >= kSuccessesToWiden) Widen();
  changed_.SignalAll();
  ++num_done_;
  return ChunkProgress{num_done_, num_done_ + num_under_way_ + NumLeft()};
}

void ChunkQueue::PushBack(const Chunk& chunk, const absl::Status& status, absl::Duration wait) {
  absl::MutexLock lock(&mutex_);
  Return(chunk);
  const absl::Time opens = absl::Now() + wait;
  if (opens >= deadline_) return FailLocked(status);
  opens_ = std::max(opens_, opens);
  // What is still under way has its room.
  num_allowed_ = std::clamp(num_under_way_, 1, num_allowed_);
  num_successes_ = 0;
  if (num_under_way_ == 0 && ++num_lone_refusals_ >= kRefusalsToShrink && Halve(chunk.count)) {
    num_lone_refusals_ = 0;
  }
}

void ChunkQueue::Shrink(const Chunk& chunk, const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  Return(chunk);
  if (!Halve(chunk.count)) return FailLocked(status);
  most_elements_ = std::min(most_elements_, chunk_elements_);
}

void ChunkQueue::Fail(const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  --num_under_way_;
  FailLocked(status);
}

void ChunkQueue::Throw(std::exception_ptr exception) {
  absl::MutexLock lock(&mutex_);
  if (!exception_) exception_ = std::move(exception);
  changed_.SignalAll();
}

absl::StatusOr<std::string> ChunkQueue::Result() {
  absl::MutexLock lock(&mutex_);
  if (exception_) std::rethrow_exception(exception_);
  if (!status_.ok()) return status_;
  return weights_;
}

void ChunkQueue::Return(const Chunk& chunk) {
  --num_under_way_;
  returned_.push_back(chunk);
  changed_.SignalAll();
}

void ChunkQueue::FailLocked(const absl::Status& status) {
  if (status_.ok()) status_ = status;
  changed_.SignalAll();
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
