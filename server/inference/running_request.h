// SPDX-License-Identifier: Apache-2.0
//
// An admitted request while it runs: in chunks that an executor takes as single batches (one chunk,
// for all but large requests), whose results it puts together into one answer. Knows nothing of
// calls.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/batching/admission.h"
#include "server/batching/batcher.h"
#include "server/batching/request.h"
#include "server/core/executor.h"
#include "server/core/phase_times.h"
#include "server/core/slab.h"
#include "server/inference/infer_encoder.h"
#include "server/inference/open_request.h"
#include "server/inference/stages.h"

namespace swiglu::server {

// The chunks that are under way own it.
class RunningRequest : public std::enable_shared_from_this<RunningRequest> {
 public:
  // Both parts must outlive it.
  RunningRequest(Executor* executor, Batcher* batcher, AdmittedRequest admitted,
                 OpenRequest request);

  // Starts it. Once. The request ends when its last chunk has, perhaps before this returns.
  void Start();

 private:
  struct Chunk {
    PlanReader reader;
    Slab slab;
    OutputPiece outputs;
  };

  const Model& model() const { return *plan_.model; }
  // Starts chunks until enough are under way.
  void StartChunks();
  // Gets the chunk's slab and hands the chunk to the batcher.
  void RunChunk(int64_t index);
  absl::Status FillRequest(int64_t index, Request& request);
  // Gets the chunk's slab, and gives the request's tensors without a place in a region one in it.
  absl::Status FillSlots(Chunk& chunk, Request& request);
  void FinishChunk(Request& request, const Outcome& outcome);
  // Adds up what came of a chunk.
  void AddOutcome(Request& request, const Outcome& outcome);
  // A chunk has ended.
  void EndChunk(absl::Status status);
  // Ends the request. REQUIRES: no chunk is under way.
  void Finish(absl::Status status);
  // OK, or the error of a region that lost a part while it was used.
  absl::Status CheckRegions() const;
  EncodedMessage EncodeResponse();

  Executor* const executor_;
  Batcher* const batcher_;
  OpenRequest request_;
  ReceivedMessage message_;  // dropped once it is read
  const InferPlan plan_;
  const ChunkPlan chunk_plan_;
  const SlotLayout slots_;
  std::shared_ptr<RegionTensors> regions_;  // given back at the end, before the answer
  const Clock::time_point deadline_;
  const bool is_alone_;
  PlanReader inputs_;  // of the next chunk to start; guarded by mutex_ while it runs
  Ticket ticket_;      // with the first chunk while that is under way
  PhaseTimes times_;   // guarded by mutex_ while it runs

  absl::InlinedVector<Chunk, 1> chunks_;  // only the thread that works on a chunk touches it
  std::chrono::nanoseconds receive_{0};   // set by the first chunk
  std::atomic<int64_t> num_read_{0};      // chunks whose inputs have been read from the message

  // Used only with several chunks; a single chunk needs no lock.
  absl::Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  int64_t num_started_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_ended_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace swiglu::server
