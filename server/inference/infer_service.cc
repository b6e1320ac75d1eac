// SPDX-License-Identifier: Apache-2.0
//
// The way of one request up to its admission. See the header.
#include "server/inference/infer_service.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>
#include <utility>

#include "server/codec/errors.h"
#include "server/codec/infer_decoder.h"
#include "server/codec/infer_message.h"
#include "server/inference/running_request.h"
#include "server/log/log.h"

namespace swiglu::server {
namespace {

// Whether the caller asks to be told of the last answer to its request: here there is one to each.
bool WantsFinalMark(const inference::ModelInferRequest& request) {
  const auto found = request.parameters().find("triton_enable_empty_final_response");
  return found != request.parameters().end() && found->second.bool_param();
}

// What a request holds beside its tensors: its shape and id from its admission on, and both again
// in its answer, the shape once for each output. 0 where that is as little as usual.
int64_t EnvelopeBytes(const InferPlan& plan, const std::string& id) {
  constexpr int64_t kUsualBytes = 1024;
  constexpr int64_t kMostBytesOfADim = 10;  // encoded
  const auto num_dims = static_cast<int64_t>(plan.shape.size());
  const auto num_outputs = static_cast<int64_t>(plan.outputs.size());
  const int64_t bytes = num_dims * static_cast<int64_t>(sizeof(int64_t)) +
                        num_dims * num_outputs * kMostBytesOfADim +
                        2 * static_cast<int64_t>(id.size());
  return bytes <= kUsualBytes ? 0 : bytes;
}

// The memory that the slabs of a request take.
int64_t SlabsBytes(const ChunkPlan& chunks, const SlotLayout& slots, const Model& model,
                   Executor& executor) {
  const auto slab_bytes = [&](int64_t chunk) {
    const size_t size = ChunkSlabBytes(model, slots, chunks.num_elements(chunk));
    return size == 0 ? 0 : static_cast<int64_t>(executor.slab_pool().SlabBytes(size));
  };
  const int64_t last = chunks.num_chunks - 1;
  return slab_bytes(last) + (last == 0 ? 0 : last * slab_bytes(0));
}

// Until when a request is wanted: its call's deadline, or sooner, if the message says so.
Clock::time_point DeadlineOf(const InferPlan& plan, Clock::time_point deadline,
                             Clock::time_point now) {
  if (!plan.timeout.has_value()) return deadline;
  // Compared as a distance, in the coarser unit: a huge timeout overflows a time point, and
  // nanoseconds too.
  const auto left = std::chrono::duration_cast<std::chrono::microseconds>(deadline - now);
  return left > *plan.timeout ? now + *plan.timeout : deadline;
}

// Takes the message apart, checks it, and finds its tensors. `request` learns who it is as far as
// that can be read.
absl::StatusOr<DecodedRequest> Decode(ReceivedMessage message, const ModelRegistry& models,
                                      const RegionRegistry* regions, OpenRequest& request) {
  if (!message.bytes.Dump(&message.slices).ok()) {
    return absl::InternalError("cannot read the received message");
  }
  if (message.size_bytes == 0) return errors::EmptyRequest();
  // Kept from message to message for its memory; nothing of it is used after this function.
  thread_local InferMessage parsed;
  absl::Status status = ParseInferMessage(message.slices, parsed);
  if (!status.ok()) return status;
  const inference::ModelInferRequest& envelope = parsed.envelope;
  const Model* const model = models.Find(envelope.model_name());
  request.Identify(model, {model == nullptr ? errors::Echo(envelope.model_name()) : "",
                           envelope.id(), WantsFinalMark(envelope)});
  auto plan = CheckInferMessage(parsed, models, regions != nullptr);
  if (!plan.ok()) return plan.status();
  PlanReader inputs(*plan);
  DecodedRequest decoded{std::move(message), *std::move(plan), std::move(inputs)};
  if (decoded.plan.regions == nullptr) return decoded;
  auto tensors = FindRegionTensors(decoded.plan, *regions, Clock::now());
  if (!tensors.ok()) return tensors.status();
  decoded.regions = *std::move(tensors);
  return decoded;
}

}  // namespace

InferService::InferService(InferServiceOptions options, const ModelRegistry* models,
                           Admission* admission, Executor* executor, Batcher* batcher,
                           Observer* observer, const RegionRegistry* regions)
    : options_(options),
      models_(models),
      admission_(admission),
      executor_(executor),
      batcher_(batcher),
      observer_(observer),
      regions_(regions != nullptr && regions->is_enabled() ? regions : nullptr) {}

absl::StatusOr<Charge> InferService::ReserveMessage(std::optional<int64_t> announced_bytes,
                                                    const MessageSource& source) {
  if (announced_bytes > options_.max_request_bytes) {
    return RefusalOf(Rejection::kTooLarge, *announced_bytes);
  }
  const int64_t first_bytes = admission_->first_message_bytes();
  const int64_t bytes = announced_bytes.value_or(first_bytes);
  if (!announced_bytes.has_value() && !source.is_measured) {
    // An estimate refuses nobody.
    const int64_t likely_bytes =
        std::min(unannounced_.bytes(Clock::now()), admission_->half_budget_bytes());
    auto reserved = admission_->Reserve(likely_bytes, source.share);
    if (auto* charge = absl::get_if<Charge>(&reserved)) return std::move(*charge);
  }
  auto reserved = admission_->Reserve(bytes, source.share);
  if (auto* reason = absl::get_if<Rejection>(&reserved)) return RefusalOf(*reason, bytes, source);
  return std::move(absl::get<Charge>(reserved));
}

absl::Status InferService::RefusalOf(const Overrun& overrun, const MessageSource& source) const {
  if (overrun.beside_refused) return errors::BesideRefused();
  // It wanted a little more.
  constexpr int64_t kMoreBytes = Admission::kSmallMessageBytes + 1;
  if (overrun.reason != Rejection::kTooLarge) return RefusalOf(overrun.reason, kMoreBytes, source);
  if (overrun.bytes > options_.max_request_bytes) {
    return errors::RequestOutgrows(options_.max_request_bytes);
  }
  return overrun.bytes > admission_->half_budget_bytes()
             ? errors::ExceedsBudget(overrun.bytes, memory_budget_bytes())
             : errors::UnannouncedTooLarge(max_unannounced_bytes(), memory_budget_bytes());
}

void InferService::Start(ReceivedMessage message, InferContext context, Done done) {
  CHECK(context.cancelled != nullptr && context.tasks != nullptr);
  OpenRequest request(observer_, std::move(context), message.size_bytes, std::move(done));
  absl::StatusOr<AdmittedRequest> admitted = Prepare(std::move(message), request);
  if (admitted.ok()) {
    return std::make_shared<RunningRequest>(executor_, batcher_, *std::move(admitted),
                                            std::move(request))
        ->Start();
  }
  request.Fail(admitted.status(), {.receive = Clock::now() - request.context().started});
}

void InferService::ReportUnstarted(absl::Status status, const RequestOrigin* origin,
                                   Clock::time_point started) {
  InferContext context;
  context.started = started;
  context.origin = origin;
  OpenRequest(observer_, std::move(context), 0, [](InferReply) {
  }).Fail(std::move(status), {.receive = Clock::now() - started});
}

absl::Status InferService::RefusalOf(Rejection reason, int64_t bytes,
                                     const MessageSource& source) const {
  const AdmissionOptions& limits = admission_->options();
  switch (reason) {
    case Rejection::kDraining:
      return errors::Draining();
    case Rejection::kQueueFull:
      return errors::QueueFull(limits.max_queued_requests);
    case Rejection::kBudget:
      return source.share != nullptr && admission_->IsShareInUse(bytes, *source.share)
                 ? errors::ShareInUse(limits.memory_budget_bytes)
                 : errors::BudgetInUse(limits.memory_budget_bytes);
    default:
      return bytes > options_.max_request_bytes
                 ? errors::RequestTooLarge(bytes, options_.max_request_bytes)
                 : errors::ExceedsBudget(bytes, limits.memory_budget_bytes);
  }
}

absl::StatusOr<AdmittedRequest> InferService::Prepare(ReceivedMessage message,
                                                      OpenRequest& request) {
  const absl::Status charged = ChargeMessage(message);
  // Also if it is refused, so that the caller of a stream hears which request that was.
  absl::StatusOr<DecodedRequest> decoded = Decode(std::move(message), *models_, regions_, request);
  if (!charged.ok()) return charged;
  if (!decoded.ok()) return decoded.status();
  return Admit(*std::move(decoded), request);
}

absl::Status InferService::ChargeMessage(ReceivedMessage& message) {
  const int64_t bytes = message.size_bytes;
  const MessageSource& source = message.source;
  if (!message.is_announced && !source.is_measured) unannounced_.Add(bytes, Clock::now());
  if (bytes > options_.max_request_bytes || bytes > admission_->half_budget_bytes()) {
    return RefusalOf(Rejection::kTooLarge, bytes);
  }
  if (!message.is_announced && source.is_measured && bytes > max_unannounced_bytes()) {
    return errors::UnannouncedTooLarge(max_unannounced_bytes(), memory_budget_bytes());
  }
  if (message.charge.is_held()) {
    if (message.charge.Resize(bytes)) return absl::OkStatus();
    return RefusalOf(Rejection::kBudget, bytes - message.charge.bytes(), source);
  }
  auto reserved = admission_->Reserve(bytes, source.share);
  if (auto* reason = absl::get_if<Rejection>(&reserved)) return RefusalOf(*reason, bytes, source);
  message.charge = std::move(absl::get<Charge>(reserved));
  return absl::OkStatus();
}

absl::StatusOr<AdmittedRequest> InferService::Admit(DecodedRequest decoded,
                                                    const OpenRequest& request) {
  const InferPlan& plan = decoded.plan;
  const std::string& id = request.identity().id;
  absl::Status status = CheckResponseSize(plan, id);
  if (!status.ok()) return status;
  const Clock::time_point now = Clock::now();
  const Clock::time_point deadline = DeadlineOf(plan, request.context().deadline, now);
  if (deadline <= now) return errors::Expired("before execution");

  static const RegionTensors kNoRegions;
  const RegionTensors& regions = decoded.regions == nullptr ? kNoRegions : *decoded.regions;
  constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();
  // What a device has in its memory already needs no room, and passes at that memory's speed.
  const int64_t executor_bytes =
      regions.placement.is_resident ? kNoLimit : executor_->max_batch_bytes();
  // Gradients of weights are sums over all tokens, so the executor gets the request in one piece.
  const int64_t max_chunk_bytes =
      plan.has_gradients() ? kNoLimit : MaxBatchBytes(*plan.model, executor_bytes);
  const ChunkPlan chunks = PlanChunks(*plan.model, plan.num_elements, max_chunk_bytes);
  const SlotLayout slots = PlanSlots(*plan.model, plan.ComputedOutputs(), executor_->TakesReaders(),
                                     regions.inputs, regions.outputs);
  // What is kept of each chunk. It counts where tensors are large and the message is small, or
  // where chunks are small.
  constexpr int64_t kChunkStateBytes = 512;
  const bool counts = decoded.regions != nullptr || !IsElementwise(plan.model->op);
  const int64_t state_bytes = counts ? chunks.num_chunks * kChunkStateBytes : 0;
  const int64_t held_bytes =
      SlabsBytes(chunks, slots, *plan.model, *executor_) + EnvelopeBytes(plan, id) + state_bytes;
  auto admitted = admission_->Admit(held_bytes);
  if (auto* reason = absl::get_if<Rejection>(&admitted)) {
    absl::Status refusal = RefusalOf(*reason, held_bytes);
    const bool needs_regions = *reason == Rejection::kTooLarge && plan.has_inline_gradients();
    return needs_regions ? errors::GradientsNeedRegions(refusal) : refusal;
  }
  Ticket ticket = std::move(absl::get<Ticket>(admitted));
  const bool is_alone = admission_->HoldsOnly(decoded.message.charge, ticket);
  return AdmittedRequest{std::move(decoded), chunks, slots, deadline, std::move(ticket), is_alone};
}

absl::Status InferService::CheckResponseSize(const InferPlan& plan, const std::string& id) const {
  // What a response has beside its tensors, it repeats of the request's envelope, once per output.
  constexpr int64_t kMaxMetadataBytes = (kMaxOutputs + 1) * int64_t{kMaxEnvelopeBytes};
  const int64_t limit = options_.max_request_bytes;
  if (ResponseTensorBytes(plan) <= limit - kMaxMetadataBytes) return absl::OkStatus();
  const int64_t bytes = ResponseBytes(plan, id);
  if (bytes <= limit) return absl::OkStatus();
  absl::Status refusal = errors::ResponseTooLarge(bytes, limit);
  return plan.has_inline_gradients() ? errors::GradientsNeedRegions(refusal) : refusal;
}

}  // namespace swiglu::server
