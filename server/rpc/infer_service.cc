// SPDX-License-Identifier: Apache-2.0
//
// The way of one inference through the server. See the header.
#include "server/rpc/infer_service.h"

#include <algorithm>
#include <utility>

#include "server/log/log.h"
#include "server/rpc/errors.h"
#include "server/rpc/infer_decoder.h"

namespace swiglu::server {
namespace {

// Keeps a slab and its share of the budget until the last slice over it is gone.
struct HeldSlab {
  Slab slab;
  Charge charge;
};

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

// The state of one inference until its answer is handed over.
struct InferService::Inference {
  InferContext context;
  Done done;
  InferIdentity identity;
  InferPlan plan;  // its sources are valid only inside Prepare
  std::unique_ptr<Request> request = std::make_unique<Request>();
  RequestRecord record;
  EncodedMessage response;
};

InferService::InferService(InferServiceOptions options, Admission* admission, SlabPool* slab_pool,
                           Batcher* batcher, Observer* observer)
    : options_(options),
      admission_(admission),
      slab_pool_(slab_pool),
      batcher_(batcher),
      observer_(observer) {}

void InferService::Start(grpc::ByteBuffer message, InferContext context, Done done) {
  CHECK(context.cancelled != nullptr);
  auto inference = std::make_unique<Inference>();
  inference->context = std::move(context);
  inference->done = std::move(done);
  inference->record.bytes_in = static_cast<int64_t>(message.Length());

  absl::Status status = Prepare(std::move(message), *inference);
  inference->record.receive = Clock::now() - inference->context.started;
  if (!status.ok()) return Finish(*inference, std::move(status));
  Submit(std::move(inference));
}

absl::Status InferService::CheckSize(int64_t size_bytes) const {
  if (size_bytes <= options_.max_request_bytes) return absl::OkStatus();
  observer_->RequestRejected(Rejection::kTooLarge);
  return errors::RequestTooLarge(size_bytes, options_.max_request_bytes);
}

absl::Status InferService::CheckAnnouncedSize(int64_t size_bytes) const {
  absl::Status status = CheckSize(size_bytes);
  if (!status.ok()) return status;
  const int64_t budget_bytes = admission_->options().memory_budget_bytes;
  // The working copy is as large as the message's tensors.
  const int64_t copy_bytes = std::max<int64_t>(0, size_bytes - int64_t{kMaxEnvelopeBytes});
  if (size_bytes <= budget_bytes - copy_bytes) return absl::OkStatus();
  observer_->RequestRejected(Rejection::kTooLarge);
  return errors::ExceedsBudget(size_bytes + copy_bytes, budget_bytes);
}

void InferService::ReportUnstarted(absl::Status status, Clock::time_point started) {
  Inference inference;
  inference.context.started = started;
  inference.done = [](InferReply) {};
  inference.record.receive = Clock::now() - started;
  if (absl::IsUnavailable(status)) observer_->RequestRejected(Rejection::kDraining);
  Finish(inference, std::move(status));
}

absl::Status InferService::Prepare(grpc::ByteBuffer message, Inference& inference) {
  const Charge received = admission_->ChargeReceived(inference.record.bytes_in);
  absl::Status status = CheckSize(inference.record.bytes_in);
  if (!status.ok()) return status;

  std::vector<grpc::Slice> slices;
  if (!message.Dump(&slices).ok()) return absl::InternalError("cannot read the received message");
  // From here on `slices` alone holds the bytes; they are let go when this function returns.
  message.Clear();
  auto parsed = ParseInferMessage(slices);
  if (absl::IsResourceExhausted(parsed.status())) {
    observer_->RequestRejected(Rejection::kTooLarge);
  }
  if (!parsed.ok()) return parsed.status();
  inference.identity = {parsed->envelope.model_name(), parsed->envelope.id()};
  inference.record.model = FindModel(parsed->envelope.model_name());
  auto plan = CheckInferMessage(*parsed);
  if (!plan.ok()) return plan.status();
  inference.plan = *std::move(plan);
  return AdmitAndCopy(inference);
}

absl::Status InferService::AdmitAndCopy(Inference& inference) {
  const InferPlan& plan = inference.plan;
  const int num_inputs = static_cast<int>(plan.model->inputs.size());
  const size_t stride = AlignUp(plan.tensor_bytes);
  const int64_t slab_bytes = static_cast<int64_t>(stride) * num_inputs;
  absl::Status status = CheckResponseSize(inference);
  if (!status.ok()) return status;

  Request& request = *inference.request;
  request.deadline = inference.context.deadline;
  if (plan.timeout.has_value()) {
    const Clock::time_point now = Clock::now();
    // Compared as a distance, in the coarser unit: a huge timeout overflows a time point, and
    // nanoseconds too.
    const auto left = std::chrono::duration_cast<std::chrono::microseconds>(request.deadline - now);
    if (left > *plan.timeout) request.deadline = now + *plan.timeout;
  }
  const int64_t bytes_in = inference.record.bytes_in;
  auto admitted = admission_->Admit(slab_bytes, bytes_in);
  if (auto* reason = absl::get_if<Rejection>(&admitted)) {
    observer_->RequestRejected(*reason);
    return ToStatus(*reason, slab_bytes + bytes_in);
  }
  request.ticket = std::move(absl::get<Ticket>(admitted));
  request.model = plan.model;
  request.segment.num_elements = plan.num_elements;
  request.cancelled = inference.context.cancelled;
  if (slab_bytes == 0) return absl::OkStatus();

  auto slab = slab_pool_->Acquire(static_cast<size_t>(slab_bytes));
  if (!slab.ok()) return slab.status();
  request.slab = *std::move(slab);
  for (int k = 0; k < num_inputs; ++k) {
    std::byte* operand = request.slab.data.get() + stride * k;
    CopyInput(plan, k, operand);
    request.segment.inputs[k] = operand;
  }
  // In place: output k over input k. There are never more outputs than inputs.
  for (size_t k = 0; k < plan.model->outputs.size(); ++k) {
    request.segment.outputs[k] = request.slab.data.get() + stride * k;
  }
  return absl::OkStatus();
}

absl::Status InferService::CheckResponseSize(const Inference& inference) const {
  // What a response has beside its tensors, it repeats of the request's envelope, once per output.
  constexpr int64_t kMaxMetadataBytes = (kMaxTensors + 1) * int64_t{kMaxEnvelopeBytes};
  const int64_t limit = options_.max_request_bytes;
  if (ResponseTensorBytes(inference.plan) <= limit - kMaxMetadataBytes) return absl::OkStatus();
  const int64_t bytes = ResponseBytes(inference.plan, inference.identity.id);
  if (bytes <= limit) return absl::OkStatus();
  observer_->RequestRejected(Rejection::kTooLarge);
  return errors::ResponseTooLarge(bytes, limit);
}

void InferService::Submit(std::unique_ptr<Inference> inference) {
  std::unique_ptr<Request> request = std::move(inference->request);
  request->accepted_at = Clock::now();
  request->done = [this, inference = std::move(inference)](std::unique_ptr<Request> finished,
                                                           const Outcome& outcome) mutable {
    RequestRecord& record = inference->record;
    record.queue = outcome.queue;
    record.copy_in = outcome.execution.copy_in;
    record.compute = outcome.execution.compute;
    record.copy_out = outcome.execution.copy_out;
    inference->request = std::move(finished);
    Finish(*inference, outcome.status);
  };
  batcher_->Submit(std::move(request));
}

void InferService::Finish(Inference& inference, absl::Status status) {
  RequestRecord& record = inference.record;
  const auto& cancelled = inference.context.cancelled;
  if (status.ok() && cancelled->load(std::memory_order_relaxed)) {
    status = Clock::now() >= inference.context.deadline
                 ? absl::DeadlineExceededError("deadline passed during execution")
                 : absl::CancelledError("cancelled by the caller during execution");
  }
  InferReply reply;
  if (status.ok()) {
    Request& request = *inference.request;
    Charge charge = request.ticket.TakeCharge();
    charge.MoveTo(MemoryKind::kResponse);
    auto held = std::make_shared<HeldSlab>(HeldSlab{std::move(request.slab), std::move(charge)});
    reply.message =
        EncodeInferResponse(inference.plan, inference.identity.id, request.segment.outputs, held);
    record.bytes_out = static_cast<int64_t>(reply.message.size_bytes);
    record.num_elements = inference.plan.num_elements;
  } else {
    // The slab and the budget are free before the caller hears of it.
    inference.request.reset();
  }
  Rejection reason;
  if (ToRejection(status, &reason)) observer_->RequestRejected(reason);
  record.code = status.code();
  observer_->RequestFinished(record);

  reply.status = std::move(status);
  reply.model = record.model;
  reply.identity = std::move(inference.identity);
  reply.started = inference.context.started;
  inference.done(std::move(reply));
}

absl::Status InferService::ToStatus(Rejection reason, int64_t bytes) const {
  const AdmissionOptions& limits = admission_->options();
  switch (reason) {
    case Rejection::kDraining:
      return errors::Draining();
    case Rejection::kQueueFull:
      return errors::QueueFull(limits.max_queued_requests);
    case Rejection::kBudget:
      return errors::BudgetInUse(limits.memory_budget_bytes);
    default:
      return errors::ExceedsBudget(bytes, limits.memory_budget_bytes);
  }
}

}  // namespace swiglu::server
