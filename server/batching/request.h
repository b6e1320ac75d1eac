// SPDX-License-Identifier: Apache-2.0
//
// An accepted request as batching sees it: its model, where its tensors lie, its deadline, and the
// callback for its end. Inference makes it. The batcher owns it from `Submit` to its completion.
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

// The order of requests: all queued requests of one level go before any request of the next level.
enum class Priority : uint8_t { kHigh, kNormal, kLow };
inline constexpr int kNumPriorities = 3;

// Whether a request is whole, or one of the chunks that a large one was cut into. Whole requests
// and chunks take turns, so that small ones do not wait behind all of a large one.
enum class Extent : uint8_t { kWhole, kChunk };
inline constexpr int kNumExtents = 2;

// How an accepted request ended.
struct Outcome {
  // OK; DEADLINE_EXCEEDED or CANCELLED when it was dropped before execution; else the executor's
  // error.
  absl::Status status;
  // How long it was queued, and the phases of its batch. A dropped request has no batch.
  PhaseTimes times;
};

struct Request {
  // Hands the request back with its outcome. Called exactly once, from any thread, with no lock
  // held.
  using Done = absl::AnyInvocable<void(std::unique_ptr<Request> request, const Outcome& outcome)>;

  const Model* model = nullptr;
  Priority priority = Priority::kNormal;
  Extent extent = Extent::kWhole;
  // Where the inputs are read and the outputs written. The caller keeps that memory.
  Segment segment;
  Placement placement = {};
  // Its place in the queue and its share of the memory budget; a chunk has none of its own.
  Ticket ticket;
  Clock::time_point accepted_at;
  // Past this point nobody waits for the answer: it is dropped then, if it is in no batch yet.
  Clock::time_point deadline = Clock::time_point::max();
  // The server held no other request when this one was admitted, so the thread that submits it may
  // wait for its batch.
  bool is_alone = false;
  // `done` is called on the threads of this queue; nullptr: on any thread.
  TaskQueue* tasks = nullptr;
  // The code that submits requests sets this, on any thread, when nobody wants the answer any
  // longer, and then calls `Batcher::Cancel`. Shared by all requests of one call. Never null.
  std::shared_ptr<const std::atomic<bool>> cancelled;
  Done done;
};

// Whether a caller that goes away at `now` has waited until its deadline. The caller's deadline
// comes a little before the deadline on our clock. There are two reasons: gRPC rounds up the
// timeout that it sends, by at most 1 %, and sending takes time.
inline bool HasWaitedUntil(Clock::time_point deadline, Clock::time_point start,
                           Clock::time_point now) {
  constexpr std::chrono::milliseconds kOnTheWay{10};
  if (deadline == Clock::time_point::max()) return false;
  return deadline - now <= (deadline - start) / 100 + kOnTheWay;
}

// Bytes of the request's inputs.
inline int64_t InputBytes(const Request& request) {
  return request.segment.num_elements * ElementBytes(request.model->dtype) *
         static_cast<int64_t>(request.model->inputs.size());
}

}  // namespace swiglu::server
