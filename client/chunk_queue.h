// SPDX-License-Identifier: Apache-2.0
//
// The chunks of an operation that is split: which comes next, and how many may be under way.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"

namespace swiglu::client {

// Consecutive elements of an operation's tensors.
struct Chunk {
  int64_t first;
  int64_t count;
};

// How many chunks have succeeded, and how many there are. The latter grows when chunks get smaller.
struct ChunkProgress {
  int64_t num_done;
  int64_t num_chunks;
};

// How an operation is cut.
struct ChunkPlan {
  int64_t num_elements;
  int64_t chunk_elements;  // of a chunk at first
  int64_t least_elements;  // that chunks are multiples of; they do not get smaller than that
  int max_under_way;
};

// Hands out chunks until all elements are done or one has failed for good. It narrows to what the
// server takes. If the server pushes back, fewer chunks are under way, down to one, and none begins
// before the time that the server asked for. If it pushes back although nothing else is under way,
// or says that a chunk is too large, chunks get smaller. After a row of successes, one more may be
// under way again, or chunks get larger again, up to what the server has not called too large.
// Keeps the first error. A state machine without clock, threads or locks.
class ChunkQueue {
 public:
  // `model` must outlive the queue. No chunk begins after `deadline`.
  ChunkQueue(absl::string_view model, const ChunkPlan& plan, absl::Time deadline);

  // The next chunk, if one may begin now. Each chunk that is given is given back to one of Succeed,
  // PushBack, Shrink and Fail.
  absl::optional<Chunk> Take(absl::Time now);

  // When Take may give a chunk though no other has come back. Infinite if it then gives none.
  absl::Time NextTake(absl::Time now) const;

  // Notes that a chunk was computed by `weights`. Returns nullopt, and fails the operation, if an
  // earlier chunk was computed by others.
  absl::optional<ChunkProgress> Succeed(const std::string& weights);

  // Takes a chunk back that the server refused with `status`, until `opens`.
  void PushBack(const Chunk& chunk, const absl::Status& status, absl::Time opens);

  // Takes a chunk back that the server finds too large. Fails if it cannot be smaller.
  void Shrink(const Chunk& chunk, const absl::Status& status);

  // Notes that a chunk has failed for good.
  void Fail(const absl::Status& status);

  // Lets no further chunk begin.
  void Stop(const absl::Status& status);

  // The weights of the chunks that have succeeded, or the first error.
  absl::StatusOr<std::string> Result() const;

 private:
  int64_t NumLeft() const;
  void Return(const Chunk& chunk);
  bool Halve(int64_t count);
  void Widen();

  const absl::string_view model_;
  const ChunkPlan plan_;
  const absl::Time deadline_;
  int64_t next_ = 0;  // the first element that was never taken
  std::vector<Chunk> returned_;
  int64_t chunk_elements_;
  int64_t most_elements_;  // that chunks may have again
  int num_under_way_ = 0;
  int num_allowed_;
  absl::Time opens_ = absl::InfinitePast();
  int num_successes_ = 0;      // since the last change of width or size
  int num_lone_refusals_ = 0;  // one after the other
  int64_t num_done_ = 0;
  std::string weights_;  // of the chunks that have succeeded
  absl::Status status_;
};

}  // namespace swiglu::client
