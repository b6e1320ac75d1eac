// SPDX-License-Identifier: Apache-2.0
//
// Chunks on their way. See the header.
#include "server/inference/inference.h"

#include <algorithm>
#include <utility>

#include "server/inference/errors.h"
#include "server/log/log.h"

namespace swiglu::server {
namespace {

// Keeps slabs and their share of the budget until the last slice over them is gone.
struct HeldSlabs {
  absl::InlinedVector<Slab, 1> slabs;
  Charge charge;
};

// Chunks of one request that are under way at once: enough to keep every lane busy, few enough to
// leave room for others.
int64_t MaxChunksUnderWay(const Executor& executor) {
  return std::clamp<int64_t>(2 * executor.num_lanes(), 2, 8);
}

size_t AlignUp(int64_t bytes) {
  return (static_cast<size_t>(bytes) + kSlabAlignment - 1) / kSlabAlignment * kSlabAlignment;
}

// The rejection that an error of an accepted or refused request counts as, if any.
bool ToRejection(const absl::Status& status, Rejection* reason) {
  switch (status.code()) {
    case absl::StatusCode::kDeadlineExceeded:
      *reason = Rejection::kDeadline;
      return true;
    case absl::StatusCode::kCancelled:
      *reason = Rejection::kCancelled;
      return true;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kUnimplemented:
      *reason = Rejection::kInvalid;
      return true;
    default:
      return false;
  }
}

}  // namespace

ChunkPlan PlanChunks(const Model& model, int64_t num_elements, int64_t max_batch_bytes) {
  const int64_t element_bytes = ElementBytes(model.dtype);
  const int64_t alignment = static_cast<int64_t>(kSlabAlignment) / element_bytes;
  const int64_t most =
      max_batch_bytes / (element_bytes * static_cast<int64_t>(model.inputs.size()));
  ChunkPlan plan;
  plan.chunk_elements = std::max(most / alignment, int64_t{1}) * alignment;
  plan.num_chunks = std::max<int64_t>((num_elements - 1) / plan.chunk_elements + 1, 1);
  plan.last_elements = num_elements - (plan.num_chunks - 1) * plan.chunk_elements;
  return plan;
}

Inference::Inference(Executor* executor, Batcher* batcher, Observer* observer,
                     InferContext its_context, Done done)
    : context(std::move(its_context)),
      executor_(executor),
      batcher_(batcher),
      observer_(observer),
      done_(std::move(done)) {}

int Inference::num_slots() const {
  // In place: output k over input k, and there are never more outputs than inputs.
  return static_cast<int>(executor_->TakesReaders() ? plan.model->outputs.size()
                                                    : plan.model->inputs.size());
}

size_t Inference::SlotBytes(int64_t chunk) const {
  return AlignUp(num_elements(chunk) * ElementBytes(plan.model->dtype));
}

int64_t Inference::SlabBytes() const {
  const auto slab_bytes = [this](int64_t chunk) {
    const size_t size = SlotBytes(chunk) * num_slots();
    return size == 0 ? 0 : static_cast<int64_t>(executor_->slab_pool().SlabBytes(size));
  };
  const int64_t last = chunks.num_chunks - 1;
  return slab_bytes(last) + (last == 0 ? 0 : last * slab_bytes(0));
}

void Inference::Run() {
  chunks_.resize(chunks.num_chunks);
  if (chunks.num_chunks > 1) return StartChunks();
  chunks_[0].reader = std::move(inputs);
  RunChunk(0);
}

void Inference::StartChunks() {
  const int64_t element_bytes = ElementBytes(plan.model->dtype);
  while (true) {
    int64_t index = 0;
    {
      absl::MutexLock lock(&mutex_);
      if (!status_.ok() || num_started_ == chunks.num_chunks ||
          num_started_ - num_ended_ == MaxChunksUnderWay(*executor_)) {
        return;
      }
      index = num_started_++;
      chunks_[index].reader = inputs;
      inputs.Skip(static_cast<size_t>(num_elements(index) * element_bytes));
    }
    context.tasks->Post(WorkLength::kLong,
                        [self = shared_from_this(), index] { self->RunChunk(index); });
  }
}

void Inference::RunChunk(int64_t index) {
  auto request = std::make_unique<Request>();
  absl::Status status = FillRequest(index, *request);
  if (!status.ok()) return EndChunk(std::move(status));
  request->accepted_at = Clock::now();
  if (index == 0) {
    request->ticket = std::move(ticket);
    receive_ = request->accepted_at - context.started;
  }
  request->done = [self = shared_from_this()](std::unique_ptr<Request> finished,
                                              const Outcome& outcome) {
    self->FinishChunk(*finished, outcome);
  };
  batcher_->Submit(std::move(request));
}

absl::Status Inference::FillRequest(int64_t index, Request& request) {
  request.model = plan.model;
  request.priority = plan.priority;
  request.extent = chunks.num_chunks > 1 ? Extent::kChunk : Extent::kWhole;
  request.deadline = deadline;
  request.cancelled = context.cancelled;
  request.is_alone = is_alone;
  request.tasks = context.tasks;
  request.segment.num_elements = num_elements(index);
  const size_t slot_bytes = SlotBytes(index);
  if (slot_bytes == 0) return absl::OkStatus();

  Chunk& chunk = chunks_[index];
  absl::StatusOr<Slab> slab = executor_->slab_pool().Acquire(slot_bytes * num_slots());
  if (!slab.ok()) return slab.status();
  chunk.slab = *std::move(slab);
  std::byte* const slots = chunk.slab.data.get();
  const auto size_bytes =
      static_cast<size_t>(num_elements(index) * ElementBytes(plan.model->dtype));
  chunk.outputs.size_bytes = size_bytes;
  for (size_t k = 0; k < plan.model->outputs.size(); ++k) {
    request.segment.outputs[k] = slots + slot_bytes * k;
    chunk.outputs.outputs[k] = slots + slot_bytes * k;
  }
  if (executor_->TakesReaders()) {
    request.segment.reader = &chunk.reader;
    return absl::OkStatus();
  }
  for (size_t k = 0; k < plan.model->inputs.size(); ++k) {
    chunk.reader.Read(static_cast<int>(k), slots + slot_bytes * k, size_bytes);
    request.segment.inputs[k] = slots + slot_bytes * k;
  }
  if (num_read_.fetch_add(1, std::memory_order_acq_rel) + 1 == chunks.num_chunks) DropMessage();
  return absl::OkStatus();
}

void Inference::FinishChunk(Request& request, const Outcome& outcome) {
  if (chunks.num_chunks == 1) {
    AddOutcome(request, outcome);
    return Finish(outcome.status);
  }
  {
    absl::MutexLock lock(&mutex_);
    AddOutcome(request, outcome);
  }
  EndChunk(outcome.status);
}

void Inference::AddOutcome(Request& request, const Outcome& outcome) {
  record.queue = std::max(record.queue, outcome.queue);
  record.copy_in += outcome.execution.copy_in;
  record.compute += outcome.execution.compute;
  record.copy_out += outcome.execution.copy_out;
  // Comes back with the chunk that it left with.
  if (request.ticket.charge().is_held()) ticket = std::move(request.ticket);
}

void Inference::EndChunk(absl::Status status) {
  if (chunks.num_chunks == 1) return Finish(std::move(status));
  bool is_last = false;
  {
    absl::MutexLock lock(&mutex_);
    if (status_.ok()) status_ = std::move(status);
    ++num_ended_;
    is_last = num_ended_ == num_started_ && (!status_.ok() || num_ended_ == chunks.num_chunks);
    status = status_;
  }
  if (is_last) return Finish(std::move(status));
  StartChunks();
}

void Inference::Finish(absl::Status status) {
  DropMessage();
  if (status.ok() && context.cancelled->load(std::memory_order_relaxed)) {
    status = HasWaitedUntil(context.deadline, context.started, Clock::now())
                 ? errors::Expired("during execution")
                 : errors::Cancelled("during execution");
  }
  InferReply reply;
  if (status.ok()) {
    reply.message = EncodeResponse();
    record.bytes_out = static_cast<int64_t>(reply.message.size_bytes);
    record.num_elements = plan.num_elements;
  } else {
    // Slabs and budget are free before the caller hears of it.
    chunks_.clear();
    ticket = Ticket();
  }
  if (receive_.count() > 0) record.receive = receive_;
  Rejection reason;
  if (ToRejection(status, &reason)) observer_->RequestRejected(reason);
  record.code = status.code();
  observer_->RequestFinished(record);

  reply.status = std::move(status);
  reply.model = record.model;
  reply.identity = std::move(identity);
  if (record.model != nullptr && !reply.status.ok()) {
    reply.identity.model_name = std::string(record.model->name);
  }
  reply.started = context.started;
  std::exchange(done_, nullptr)(std::move(reply));
}

void Inference::DropMessage() {
  slices.clear();
  message.Clear();
  context.message = Charge();
}

EncodedMessage Inference::EncodeResponse() {
  auto held = std::make_shared<HeldSlabs>();
  held->charge = ticket.TakeCharge();
  held->charge.MoveTo(MemoryKind::kResponse);
  absl::InlinedVector<OutputPiece, 1> pieces;
  for (Chunk& chunk : chunks_) {
    held->slabs.push_back(std::move(chunk.slab));
    pieces.push_back(chunk.outputs);
  }
  return EncodeInferResponse(plan, identity.id, pieces, held);
}

}  // namespace swiglu::server
