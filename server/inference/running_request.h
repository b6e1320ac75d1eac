// SPDX-License-Identifier: Apache-2.0
//
// Runs an admitted request in chunks, each small enough for one batch, and puts their results
// together into one answer. Only a large request has several chunks. Does not depend on calls.
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
#include "server/codec/infer_encoder.h"
#include "server/core/executor.h"
#include "server/core/phase_times.h"
#include "server/core/slab.h"
#include "server/inference/open_request.h"
#include "server/inference/stages.h"

namespace swiglu::server {

// The chunks that are under way own this object.
class RunningRequest : public std::enable_shared_from_this<RunningRequest> {
 public:
  // `executor` and `batcher` must outlive it.
  RunningRequest(Executor* executor, Batcher* batcher, AdmittedRequest admitted,
                 OpenRequest request);

  // Starts the request. Call it once. The request ends with its last chunk, perhaps before this
  // returns.
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
  // Fills in the chunk's request and hands it to the batcher.
  void RunChunk(int64_t index);
  absl::Status FillRequest(int64_t index, Request& request);
  // Gets the chunk's slab, in which each output to compute that lies in no region has a place.
  // Copies each input that lies in no region into the slab, too, unless the executor takes readers.
  absl::Status FillSlots(Chunk& chunk, Request& request);
  // Sets the addresses of the gradients of weights.
  void PlaceGradients(Chunk& chunk, Segment& segment) const;
  void FinishChunk(Request& request, const Outcome& outcome);
  // Adds a chunk's outcome to the totals.
  void AddOutcome(Request& request, const Outcome& outcome);
  // Counts a chunk that has ended. Then ends the request, or starts further chunks.
  void EndChunk(absl::Status status);
  // Ends the request. REQUIRES: no chunk is under way.
  void Finish(absl::Status status);
  // OK, or an error if one of the request's regions has lost a part that a batch used.
  absl::Status CheckRegions() const;
  EncodedMessage EncodeResponse();

  Executor* const executor_;
  Batcher* const batcher_;
  OpenRequest request_;
  ReceivedMessage message_;  // dropped once all inputs are read
  const InferPlan plan_;
  const ChunkPlan chunk_plan_;
  const SlotLayout slots_;
  std::shared_ptr<RegionTensors> regions_;  // given back at the end, before the answer
  const Clock::time_point deadline_;
  const bool is_alone_;
  PlanReader inputs_;  // positioned at the next chunk; guarded by mutex_ while the request runs
  Ticket ticket_;      // the first chunk has it while under way
  PhaseTimes times_;   // guarded by mutex_ while the request runs

  absl::InlinedVector<Chunk, 1> chunks_;  // each is touched only by the thread that works on it
  std::chrono::nanoseconds receive_{0};   // set by the first chunk
  std::atomic<int64_t> num_read_{0};      // chunks whose inputs have been read from the message

  // The members below are used only if there are several chunks. A single chunk needs no lock.
  absl::Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  int64_t num_started_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_ended_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace swiglu::server
