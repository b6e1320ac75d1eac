// SPDX-License-Identifier: Apache-2.0
//
// Chunks on their way. See the header.
#include "server/inference/running_request.h"

#include <algorithm>
#include <utility>

#include "absl/status/statusor.h"
#include "server/codec/errors.h"
#include "server/codec/region_errors.h"

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

}  // namespace

RunningRequest::RunningRequest(Executor* executor, Batcher* batcher, AdmittedRequest admitted,
                               OpenRequest request)
    : executor_(executor),
      batcher_(batcher),
      request_(std::move(request)),
      message_(std::move(admitted.decoded.message)),
      plan_(std::move(admitted.decoded.plan)),
      chunk_plan_(admitted.chunks),
      slots_(admitted.slots),
      regions_(std::move(admitted.decoded.regions)),
      deadline_(admitted.deadline),
      is_alone_(admitted.is_alone),
      inputs_(std::move(admitted.decoded.inputs)),
      ticket_(std::move(admitted.ticket)),
      chunks_(admitted.chunks.num_chunks) {}

void RunningRequest::Start() {
  if (chunk_plan_.num_chunks > 1) return StartChunks();
  chunks_[0].reader = std::move(inputs_);
  RunChunk(0);
}

void RunningRequest::StartChunks() {
  const int64_t num_chunks = chunk_plan_.num_chunks;
  while (true) {
    int64_t index = 0;
    {
      absl::MutexLock lock(&mutex_);
      if (!status_.ok() || num_started_ == num_chunks ||
          num_started_ - num_ended_ == MaxChunksUnderWay(*executor_)) {
        return;
      }
      index = num_started_++;
      chunks_[index].reader = inputs_;
      inputs_.Skip(
          static_cast<size_t>(chunk_plan_.num_elements(index) * ElementBytes(model().dtype)));
    }
    request_.context().tasks->Post(WorkLength::kLong,
                                   [self = shared_from_this(), index] { self->RunChunk(index); });
  }
}

void RunningRequest::RunChunk(int64_t index) {
  auto request = std::make_unique<Request>();
  absl::Status status = FillRequest(index, *request);
  if (!status.ok()) return EndChunk(std::move(status));
  request->accepted_at = Clock::now();
  if (index == 0) {
    request->ticket = std::move(ticket_);
    receive_ = request->accepted_at - request_.context().started;
  }
  request->done = [self = shared_from_this()](std::unique_ptr<Request> finished,
                                              const Outcome& outcome) {
    self->FinishChunk(*finished, outcome);
  };
  batcher_->Submit(std::move(request));
}

absl::Status RunningRequest::FillRequest(int64_t index, Request& request) {
  const int64_t num_elements = chunk_plan_.num_elements(index);
  request.model = &model();
  request.weights = plan_.weights;
  request.priority = plan_.priority;
  request.extent = chunk_plan_.num_chunks > 1 ? Extent::kChunk : Extent::kWhole;
  request.deadline = deadline_;
  request.cancelled = request_.context().cancelled;
  request.is_alone = is_alone_;
  request.tasks = request_.context().tasks;
  request.segment.num_elements = num_elements;
  if (num_elements == 0 && !plan_.has_gradients()) return absl::OkStatus();

  if (regions_ != nullptr) {
    request.placement = regions_->placement;
    // The answer has no tensors. The thread that sees the batch end encodes it: another would first
    // have to wake up, while the device waits for the caller's next request.
    const bool is_large = LengthOf(InputBytes(request)) == WorkLength::kLong;
    if (request.placement.is_resident && is_large) request.tasks = nullptr;
    const int64_t first_byte = index * chunk_plan_.chunk_elements * ElementBytes(model().dtype);
    for (int k = 0; k < kMaxTensors; ++k) {
      if (regions_->inputs[k] != nullptr) {
        request.segment.inputs[k] = regions_->inputs[k] + first_byte;
      }
      if (k < static_cast<int>(model().outputs.size()) && regions_->outputs[k] != nullptr) {
        request.segment.outputs[k] = regions_->outputs[k] + first_byte;
      }
    }
  }
  return FillSlots(chunks_[index], request);
}

absl::Status RunningRequest::FillSlots(Chunk& chunk, Request& request) {
  Segment& segment = request.segment;
  const size_t slot_bytes = SlotBytes(model(), segment.num_elements);
  const size_t slab_bytes = ChunkSlabBytes(model(), slots_, segment.num_elements);
  if (slab_bytes > 0) {
    absl::StatusOr<Slab> slab = executor_->slab_pool().Acquire(slab_bytes);
    if (!slab.ok()) return slab.status();
    chunk.slab = *std::move(slab);
  }
  const auto slot = [&](size_t k) { return chunk.slab.data.get() + slot_bytes * slots_.slots[k]; };
  const auto size_bytes = static_cast<size_t>(segment.num_elements * ElementBytes(model().dtype));
  chunk.outputs.size_bytes = size_bytes;
  for (size_t k = 0; k < model().outputs.size(); ++k) {
    if (segment.outputs[k] == nullptr && slots_.slots[k] >= 0) segment.outputs[k] = slot(k);
    chunk.outputs.outputs[k] = segment.outputs[k];
  }
  PlaceGradients(chunk, segment);
  if (segment.num_elements == 0) return absl::OkStatus();
  const bool takes_readers = executor_->TakesReaders();
  for (size_t k = 0; k < model().inputs.size(); ++k) {
    if (segment.inputs[k] != nullptr) continue;
    if (takes_readers) {
      segment.reader = &chunk.reader;
      continue;
    }
    chunk.reader.Read(static_cast<int>(k), slot(k), size_bytes);
    segment.inputs[k] = slot(k);
  }
  if (takes_readers) return absl::OkStatus();
  const int64_t num_read = num_read_.fetch_add(1, std::memory_order_acq_rel) + 1;
  if (num_read == chunk_plan_.num_chunks) message_.Drop();
  return absl::OkStatus();
}

void RunningRequest::PlaceGradients(Chunk& chunk, Segment& segment) const {
  if (!plan_.has_gradients()) return;
  const size_t slot_bytes = SlotBytes(model(), segment.num_elements);
  std::byte* const places = chunk.slab.data.get() + slot_bytes * slots_.num_slots;
  for (size_t g = 0; g < model().gradients.size(); ++g) {
    const int number = model().GradientNumber(g);
    std::byte* place = regions_ == nullptr ? nullptr : regions_->outputs[number];
    if (slots_.gradients[g] >= 0) place = places + slots_.gradients[g];
    segment.gradients[g] = reinterpret_cast<float*>(place);
    chunk.outputs.outputs[number] = place;
  }
}

void RunningRequest::FinishChunk(Request& request, const Outcome& outcome) {
  if (chunk_plan_.num_chunks == 1) {
    AddOutcome(request, outcome);
    return Finish(outcome.status);
  }
  {
    absl::MutexLock lock(&mutex_);
    AddOutcome(request, outcome);
  }
  EndChunk(outcome.status);
}

void RunningRequest::AddOutcome(Request& request, const Outcome& outcome) {
  // Chunks wait beside each other, so their waits do not add up.
  const std::chrono::nanoseconds queue = std::max(times_.queue, outcome.times.queue);
  times_ += outcome.times;
  times_.queue = queue;
  // Comes back with the chunk that it left with.
  if (request.ticket.charge().is_held()) ticket_ = std::move(request.ticket);
}

void RunningRequest::EndChunk(absl::Status status) {
  if (chunk_plan_.num_chunks == 1) return Finish(std::move(status));
  bool is_last = false;
  {
    absl::MutexLock lock(&mutex_);
    if (status_.ok()) status_ = std::move(status);
    ++num_ended_;
    is_last = num_ended_ == num_started_ && (!status_.ok() || num_ended_ == chunk_plan_.num_chunks);
    status = status_;
  }
  if (is_last) return Finish(std::move(status));
  StartChunks();
}

void RunningRequest::Finish(absl::Status status) {
  message_.Drop();
  times_.receive = receive_;
  const InferContext& context = request_.context();
  if (status.ok() && context.cancelled->load(std::memory_order_relaxed)) {
    status = HasWaitedUntil(context.deadline, context.started, Clock::now())
                 ? errors::Expired("during execution")
                 : errors::Cancelled("during execution");
  }
  if (status.ok()) status = CheckRegions();
  // No use of a region is left when the caller hears of the end.
  const std::shared_ptr<RegionTensors> regions = std::move(regions_);
  if (regions != nullptr) regions->uses.clear();
  if (status.ok()) {
    return request_.Answer(EncodeResponse(), plan_.num_elements, times_, regions.get());
  }
  // Slabs and budget are free before the caller hears of it.
  chunks_.clear();
  ticket_ = Ticket();
  request_.Fail(std::move(status), times_);
}

absl::Status RunningRequest::CheckRegions() const {
  if (regions_ == nullptr) return absl::OkStatus();
  for (const RegionUse& region : regions_->uses) {
    if (region->memory().HasHole()) return errors::RegionShrunk(region->name());
  }
  return absl::OkStatus();
}

EncodedMessage RunningRequest::EncodeResponse() {
  auto held = std::make_shared<HeldSlabs>();
  held->charge = ticket_.TakeCharge();
  held->charge.MoveTo(MemoryKind::kResponse);
  absl::InlinedVector<OutputPiece, 1> pieces;
  for (Chunk& chunk : chunks_) {
    held->slabs.push_back(std::move(chunk.slab));
    pieces.push_back(chunk.outputs);
  }
  return EncodeInferResponse(plan_, request_.identity().id, pieces, held);
}

}  // namespace swiglu::server
