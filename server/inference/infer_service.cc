// SPDX-License-Identifier: Apache-2.0
//
// The way of one inference up to its admission. See the header.
#include "server/inference/infer_service.h"

#include <algorithm>
#include <utility>

#include "server/inference/errors.h"
#include "server/inference/infer_decoder.h"
#include "server/inference/infer_message.h"
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
int64_t EnvelopeBytes(const Inference& inference) {
  constexpr int64_t kUsualBytes = 1024;
  constexpr int64_t kMostBytesOfADim = 10;  // encoded
  const auto num_dims = static_cast<int64_t>(inference.plan.shape.size());
  const auto num_outputs = static_cast<int64_t>(inference.plan.outputs.size());
  const int64_t bytes = num_dims * static_cast<int64_t>(sizeof(int64_t)) +
                        num_dims * num_outputs * kMostBytesOfADim +
                        2 * static_cast<int64_t>(inference.identity.id.size());
  return bytes <= kUsualBytes ? 0 : bytes;
}

}  // namespace

InferService::InferService(InferServiceOptions options, Admission* admission, Executor* executor,
                           Batcher* batcher, Observer* observer)
    : options_(options),
      admission_(admission),
      executor_(executor),
      batcher_(batcher),
      observer_(observer) {}

absl::StatusOr<Charge> InferService::ReserveMessage(std::optional<int64_t> announced_bytes,
                                                    const MessageSource& source) {
  if (announced_bytes > options_.max_request_bytes) {
    return Reject(Rejection::kTooLarge, *announced_bytes);
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
  if (auto* reason = absl::get_if<Rejection>(&reserved)) return Reject(*reason, bytes, source);
  return std::move(absl::get<Charge>(reserved));
}

absl::Status InferService::Refuse(const Overrun& overrun, const MessageSource& source) {
  // It wanted a little more.
  constexpr int64_t kMoreBytes = Admission::kSmallMessageBytes + 1;
  if (overrun.reason != Rejection::kTooLarge) return Reject(overrun.reason, kMoreBytes, source);
  observer_->RequestRejected(Rejection::kTooLarge);
  if (overrun.bytes > options_.max_request_bytes) {
    return errors::RequestOutgrows(options_.max_request_bytes);
  }
  return overrun.bytes > admission_->half_budget_bytes()
             ? errors::ExceedsBudget(overrun.bytes, memory_budget_bytes())
             : errors::UnannouncedTooLarge(max_unannounced_bytes(), memory_budget_bytes());
}

void InferService::Start(grpc::ByteBuffer message, InferContext context, Done done) {
  CHECK(context.cancelled != nullptr && context.tasks != nullptr);
  auto inference = std::make_shared<Inference>(executor_, batcher_, observer_, std::move(context),
                                               std::move(done));
  inference->record.bytes_in = static_cast<int64_t>(message.Length());
  absl::Status status = Prepare(std::move(message), *inference);
  if (status.ok()) return inference->Run();
  inference->record.receive = Clock::now() - inference->context.started;
  inference->Finish(std::move(status));
}

absl::Status InferService::Reject(Rejection reason, int64_t bytes, const MessageSource& source) {
  observer_->RequestRejected(reason);
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

void InferService::ReportUnstarted(absl::Status status, Clock::time_point started) {
  InferContext context;
  context.started = started;
  const auto inference = std::make_shared<Inference>(executor_, batcher_, observer_,
                                                     std::move(context), [](InferReply) {});
  inference->record.receive = Clock::now() - started;
  inference->Finish(std::move(status));
}

absl::Status InferService::Prepare(grpc::ByteBuffer message, Inference& inference) {
  const absl::Status charged = ChargeMessage(inference);
  // Also if it is refused, so that the caller of a stream hears which request that was.
  const absl::Status parsed = Parse(std::move(message), inference);
  if (!charged.ok()) return charged;
  if (absl::IsResourceExhausted(parsed)) observer_->RequestRejected(Rejection::kTooLarge);
  return parsed.ok() ? Admit(inference) : parsed;
}

absl::Status InferService::ChargeMessage(Inference& inference) {
  const int64_t bytes = inference.record.bytes_in;
  Charge& charge = inference.context.message;
  const MessageSource& source = inference.context.source;
  if (!inference.context.size_announced && !source.is_measured) {
    unannounced_.Add(bytes, Clock::now());
  }
  if (bytes > options_.max_request_bytes) return Reject(Rejection::kTooLarge, bytes);
  if (bytes > admission_->half_budget_bytes()) return Reject(Rejection::kTooLarge, bytes);
  if (!inference.context.size_announced && source.is_measured && bytes > max_unannounced_bytes()) {
    observer_->RequestRejected(Rejection::kTooLarge);
    return errors::UnannouncedTooLarge(max_unannounced_bytes(), memory_budget_bytes());
  }
  if (charge.is_held()) {
    if (charge.Resize(bytes)) return absl::OkStatus();
    return Reject(Rejection::kBudget, bytes - charge.bytes(), source);
  }
  auto reserved = admission_->Reserve(bytes, source.share);
  if (auto* reason = absl::get_if<Rejection>(&reserved)) return Reject(*reason, bytes, source);
  charge = std::move(absl::get<Charge>(reserved));
  return absl::OkStatus();
}

absl::Status InferService::Parse(grpc::ByteBuffer message, Inference& inference) {
  if (!message.Dump(&inference.slices).ok()) {
    return absl::InternalError("cannot read the received message");
  }
  inference.message.Swap(&message);
  if (inference.record.bytes_in == 0) return errors::EmptyRequest();
  // Kept from message to message for its memory; nothing of it is used after this function.
  thread_local InferMessage parsed;
  absl::Status status = ParseInferMessage(inference.slices, parsed);
  if (!status.ok()) return status;
  const inference::ModelInferRequest& envelope = parsed.envelope;
  inference.identity.id = envelope.id();
  inference.identity.wants_final_mark = WantsFinalMark(envelope);
  inference.record.model = FindModel(envelope.model_name());
  if (inference.record.model == nullptr) {
    inference.identity.model_name = errors::Echo(envelope.model_name());
  }
  auto plan = CheckInferMessage(parsed);
  if (!plan.ok()) return plan.status();
  inference.plan = *std::move(plan);
  inference.inputs = PlanReader(inference.plan);
  return absl::OkStatus();
}

absl::Status InferService::Admit(Inference& inference) {
  const InferPlan& plan = inference.plan;
  absl::Status status = CheckResponseSize(inference);
  if (!status.ok()) return status;

  const Clock::time_point now = Clock::now();
  inference.deadline = inference.context.deadline;
  if (plan.timeout.has_value()) {
    // Compared as a distance, in the coarser unit: a huge timeout overflows a time point, and
    // nanoseconds too.
    const auto left =
        std::chrono::duration_cast<std::chrono::microseconds>(inference.deadline - now);
    if (left > *plan.timeout) inference.deadline = now + *plan.timeout;
  }
  if (inference.deadline <= now) return errors::Expired("before execution");

  inference.chunks = PlanChunks(*plan.model, plan.num_elements, executor_->max_batch_bytes());
  const int64_t held_bytes = inference.SlabBytes() + EnvelopeBytes(inference);
  auto admitted = admission_->Admit(held_bytes);
  if (auto* reason = absl::get_if<Rejection>(&admitted)) return Reject(*reason, held_bytes);
  inference.ticket = std::move(absl::get<Ticket>(admitted));
  inference.is_alone = admission_->HoldsOnly(inference.context.message, inference.ticket);
  return absl::OkStatus();
}

absl::Status InferService::CheckResponseSize(const Inference& inference) {
  // What a response has beside its tensors, it repeats of the request's envelope, once per output.
  constexpr int64_t kMaxMetadataBytes = (kMaxTensors + 1) * int64_t{kMaxEnvelopeBytes};
  const int64_t limit = options_.max_request_bytes;
  if (ResponseTensorBytes(inference.plan) <= limit - kMaxMetadataBytes) return absl::OkStatus();
  const int64_t bytes = ResponseBytes(inference.plan, inference.identity.id);
  if (bytes <= limit) return absl::OkStatus();
  observer_->RequestRejected(Rejection::kTooLarge);
  return errors::ResponseTooLarge(bytes, limit);
}

}  // namespace swiglu::server
