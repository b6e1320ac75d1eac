// SPDX-License-Identifier: Apache-2.0
//
// An accepted request as batching sees it: its model, the addresses of its tensors, its deadline,
// and the callback for its end. `server/inference` makes the request. The batcher owns it from
// `Submit` until it calls `done`.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "server/batching/admission.h"
#include "server/core/clock.h"
#include "server/core/executor.h"
#include "server/core/model.h"
#include "server/core/phase_times.h"
#include "server/core/task_queue.h"

namespace swiglu::server {

// The level of a request. No batch begins with a request of one level while a more urgent level has
// a ready request.
enum class Priority : uint8_t { kHigh, kNormal, kLow };
inline constexpr int kNumPriorities = 3;

// Whether a request is whole, or a chunk of a large request. Whole requests and chunks take turns,
// so that a small request does not wait for all chunks of a large one.
enum class Extent : uint8_t { kWhole, kChunk };
inline constexpr int kNumExtents = 2;

// How an accepted request ended.
struct Outcome {
  // OK, the executor's error, or DEADLINE_EXCEEDED or CANCELLED if it was dropped before execution.
  absl::Status status;
  // Its time in the queue and the phases of its batch. A dropped request had no batch.
  PhaseTimes times;
};

struct Request {
  // Hands the request back with its outcome. Called exactly once, with no lock held, on a thread
  // that `tasks` determines.
  using Done = absl::AnyInvocable<void(std::unique_ptr<Request> request, const Outcome& outcome)>;

  const Model* model = nullptr;
  // The weights that the request was admitted with; nullptr if the model has none.
  std::shared_ptr<const Weights> weights;
  Priority priority = Priority::kNormal;
  Extent extent = Extent::kWhole;
  // The inputs and outputs. Whoever submits the request keeps this memory until `done` is called.
  Segment segment;
  Placement placement = {};
  // The request's place in the queue and its charge. Of the chunks of a large request, the first
  // has the ticket of the whole request, and the others have none.
  Ticket ticket;
  Clock::time_point accepted_at;
  // From this time on, nobody waits for the answer. If the request is still in no batch then, it is
  // dropped.
  Clock::time_point deadline = Clock::time_point::max();
  // True if the server held no other request when it admitted this one. The thread that submits it
  // may then wait for its batch.
  bool is_alone = false;
  // `done` is called on a thread of this queue; nullptr: on any thread.
  TaskQueue* tasks = nullptr;
  // Becomes true when nobody wants the answer any longer. Any thread may set it, and then calls
  // `Batcher::Cancel`. All requests of one call share it. Never null.
  std::shared_ptr<const std::atomic<bool>> cancelled;
  Done done;
};

// Whether a caller that goes away at `now` has waited until its deadline. The caller's own deadline
// is a little before `deadline`, for two reasons: gRPC rounds up the timeout that it sends, by at
// most 1 %, and sending takes time.
inline bool HasWaitedUntil(Clock::time_point deadline, Clock::time_point start,
                           Clock::time_point now) {
  constexpr std::chrono::milliseconds kOnTheWay{10};
  if (deadline == Clock::time_point::max()) return false;
  return deadline - now <= (deadline - start) / 100 + kOnTheWay;
}

// The size of all inputs of the request.
inline int64_t InputBytes(const Request& request) {
  return request.segment.num_elements * ElementBytes(request.model->dtype) *
         static_cast<int64_t>(request.model->inputs.size());
}

}  // namespace swiglu::server
