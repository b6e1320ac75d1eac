// SPDX-License-Identifier: Apache-2.0
//
// One inference after its admission: it runs in chunks that an executor takes as single
// batches (one chunk, for all but large requests), puts their results together and reports once.
// Knows nothing of calls.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/inlined_vector.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/slice.h"
#include "server/batching/admission.h"
#include "server/batching/batcher.h"
#include "server/batching/message_ledger.h"
#include "server/batching/request.h"
#include "server/core/executor.h"
#include "server/core/observer.h"
#include "server/core/task_queue.h"
#include "server/inference/infer_decoder.h"
#include "server/inference/infer_encoder.h"

namespace swiglu::server {

// What the call knows about a request, apart from its message.
struct InferContext {
  // When the call's headers were there; for a request of a stream, when its message was whole.
  Clock::time_point started;
  // The caller's deadline.
  Clock::time_point deadline = Clock::time_point::max();
  // Set when the caller has gone. Never null.
  std::shared_ptr<const std::atomic<bool>> cancelled;
  // Where the chunks of a large request are worked on. Never null.
  TaskQueue* tasks = nullptr;
  // What was reserved for the message; empty: nothing.
  Charge message = {};
  bool size_announced = false;
  MessageSource source = {};
};

// The answer. Its `message` is encoded only when `status` is OK.
struct InferReply {
  absl::Status status;
  const Model* model = nullptr;  // nullptr if the request named none
  InferIdentity identity;
  EncodedMessage message;
  Clock::time_point started;
};

// How a request is cut.
struct ChunkPlan {
  int64_t num_chunks = 1;
  // Of every chunk but the last, and of that.
  int64_t chunk_elements = 0;
  int64_t last_elements = 0;
};

// Cuts `num_elements` so that the inputs of a chunk have at most `max_batch_bytes`, and tensors one
// after the other stay aligned. A pure function.
ChunkPlan PlanChunks(const Model& model, int64_t num_elements, int64_t max_batch_bytes);

// From its making to its report. Owned by whoever works on it: the chunks that are under way.
class Inference : public std::enable_shared_from_this<Inference> {
 public:
  using Done = absl::AnyInvocable<void(InferReply)>;

  // All parts must outlive it.
  Inference(Executor* executor, Batcher* batcher, Observer* observer, InferContext context,
            Done done);

  // Runs it. REQUIRES: what follows is set.
  void Run();

  // Ends it: sends the record and the reply. REQUIRES: nothing is under way.
  void Finish(absl::Status status);

  // The memory that its slabs take.
  int64_t SlabBytes() const;

  // Set step by step until it runs. Constant from then on, except where a comment says otherwise.
  InferContext context;
  InferIdentity identity;  // the name only of an unknown model
  // Gone once it is read. Cleared after `slices`: only a ByteBuffer sets up what gRPC 1.51 needs to
  // report freed memory to its quota.
  grpc::ByteBuffer message;
  std::vector<grpc::Slice> slices;
  InferPlan plan;     // its sources are gone
  PlanReader inputs;  // of the next chunk to start; guarded by mutex_ while it runs
  ChunkPlan chunks;
  Clock::time_point deadline = Clock::time_point::max();
  Ticket ticket;
  bool is_alone = false;  // as Request says
  RequestRecord record;   // guarded by mutex_ while it runs

 private:
  struct Chunk {
    PlanReader reader;
    Slab slab;
    OutputPiece outputs;
  };

  int num_slots() const;  // tensors in a slab
  int64_t num_elements(int64_t chunk) const {
    return chunk + 1 < chunks.num_chunks ? chunks.chunk_elements : chunks.last_elements;
  }
  size_t SlotBytes(int64_t chunk) const;

  // Starts chunks for as long as few enough are under way.
  void StartChunks();
  // Gets the chunk's slab and hands the chunk to the batcher.
  void RunChunk(int64_t index);
  absl::Status FillRequest(int64_t index, Request& request);
  void FinishChunk(Request& request, const Outcome& outcome);
  // Adds to the record what came of a chunk.
  void AddOutcome(Request& request, const Outcome& outcome);
  // A chunk has ended.
  void EndChunk(absl::Status status);
  // The received bytes are not needed any more.
  void DropMessage();
  EncodedMessage EncodeResponse();

  Executor* const executor_;
  Batcher* const batcher_;
  Observer* const observer_;
  Done done_;

  absl::InlinedVector<Chunk, 1> chunks_;  // each touched by who works on it
  std::chrono::nanoseconds receive_{0};   // set by the first chunk
  std::atomic<int64_t> num_read_{0};      // chunks whose inputs are out of the message

  // Used only with several chunks; a single chunk needs no lock.
  absl::Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  int64_t num_started_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_ended_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace swiglu::server
