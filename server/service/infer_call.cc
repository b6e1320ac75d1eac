// SPDX-License-Identifier: Apache-2.0
//
// The unary inference call. See the header.
#include "server/service/infer_call.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "server/codec/errors.h"
#include "server/core/retry.h"
#include "server/service/server_timing.h"

namespace swiglu::server {
namespace {

// What a caller says of the size of its message; none if it says nothing that makes sense.
std::optional<int64_t> AnnouncedBytes(const Call& call) {
  int64_t bytes = 0;
  if (!absl::SimpleAtoi(call.Metadata("swiglu-request-bytes"), &bytes) || bytes < 0) {
    return std::nullopt;
  }
  return bytes;
}

}  // namespace

void InferCall::OnStart() {
  // A caller is refused before it has sent its payload.
  const std::optional<int64_t> announced_bytes = AnnouncedBytes(*call_);
  awaited_.Bind(parts_.watch, call_);
  absl::StatusOr<Charge> reserved =
      parts_.service->ReserveMessage(announced_bytes, awaited_.source());
  if (!reserved.ok()) return Refuse(reserved.status());
  size_announced_ = announced_bytes.has_value();
  if (size_announced_) {
    awaited_.Begin(*std::move(reserved), AwaitedKind::kAnnounced,
                   parts_.service->max_announced_bytes());
  } else {
    awaited_.Begin(*std::move(reserved), AwaitedKind::kUnannounced,
                   parts_.service->max_unannounced_bytes());
  }
  message_due_ = parts_.stall_limit.Due(
      call_->started(), announced_bytes.value_or(parts_.service->options().max_request_bytes));
  call_->Read();
}

void InferCall::OnMessage(grpc::ByteBuffer& bytes) {
  if (state_ != State::kAwaitingMessage) return;
  state_ = State::kStarted;
  token_ = ActiveRequests::Token(parts_.active);
  ReceivedMessage message(bytes, awaited_.Arrive(static_cast<int64_t>(bytes.Length())));
  message.is_announced = size_announced_;
  message.source = awaited_.source();
  InferContext context{call_->started(), call_->Deadline(), call_->cancelled(), &call_->tasks(),
                       call_};
  parts_.service->Start(std::move(message), std::move(context),
                        [call = call_->shared_from_this()](InferReply reply) {
                          static_cast<InferCall&>(call->handler()).Answer(reply);
                        });
}

void InferCall::OnNoMessage() {
  if (state_ != State::kAwaitingMessage) return;
  Refuse(errors::NoWholeMessage("ModelInferRequest"));
  state_ = State::kMissing;
}

void InferCall::OnWritten(bool ok) {
  const Clock::time_point now = Clock::now();
  if (ok && state_ == State::kStarted) {
    parts_.observer->RequestSent(model_, now - call_->started(), now - answered_);
  }
  answer_due_.store(Clock::time_point::max(), std::memory_order_relaxed);
  token_ = ActiveRequests::Token();
  answer_charge_ = Charge();
}

void InferCall::OnGone(bool cancelled) {
  if (state_ == State::kStarted) {
    if (cancelled) parts_.service->Cancel(*call_->cancelled());
    return;
  }
  // A refusal of ours stands; a message that is missing has its reason here.
  if (cancelled && state_ != State::kRefused) {
    refusal_ = HasWaitedUntil(call_->Deadline(), call_->started(), Clock::now())
                   ? errors::Expired("before the message")
                   : errors::Cancelled("before its message");
  }
  state_ = State::kRefused;
  awaited_.Drop();
  parts_.service->ReportUnstarted(refusal_, call_, call_->started());
}

void InferCall::OnServerEvent(ServerEvent event) {
  if (event == ServerEvent::kTick) CheckStall();
  if (event == ServerEvent::kOverrun) {
    const std::optional<Overrun> overrun = awaited_.TakeOverrun();
    if (overrun.has_value() && state_ == State::kAwaitingMessage) {
      Refuse(parts_.service->RefusalOf(*overrun, awaited_.source()));
    }
  }
  if (event != ServerEvent::kDraining) return;
  draining_since_ = std::min(draining_since_, Clock::now());
  if (state_ != State::kAwaitingMessage) return;
  Refuse(errors::Draining());
}

void InferCall::CheckStall() {
  const Clock::time_point now = Clock::now();
  if (state_ == State::kAwaitingMessage && now > message_due_) {
    Refuse(errors::LateMessage(absl::FromChrono(message_due_ - call_->started())));
    return;
  }
  Clock::time_point answer_due = answer_due_.load(std::memory_order_acquire);
  if (answer_due == Clock::time_point::max()) return;
  if (draining_since_ != Clock::time_point::max()) {
    const Clock::time_point start = std::max(answered_, draining_since_);
    answer_due = std::min(answer_due, parts_.stall_limit.InDrain().Due(start, answer_bytes_));
  }
  if (now > answer_due) call_->Cancel();
}

void InferCall::Refuse(absl::Status status) {
  state_ = State::kRefused;
  refusal_ = std::move(status);
  awaited_.Refuse();
  if (errors::IsRetryable(refusal_)) parts_.observer->RetryAdvised();
  call_->Finish(refusal_);
}

void InferCall::Answer(const InferReply& reply) {
  model_ = reply.model;
  answered_ = reply.ended;
  token_.Answered();
  answer_bytes_ = static_cast<int64_t>(reply.status.ok() ? reply.message.size_bytes
                                                         : reply.status.message().size());
  // What an answer of tensors takes is charged with them.
  if (!reply.status.ok()) answer_charge_ = parts_.service->ChargeAnswer(answer_bytes_);
  answer_due_.store(parts_.stall_limit.Due(answered_, answer_bytes_), std::memory_order_release);
  if (errors::IsRetryable(reply.status)) parts_.observer->RetryAdvised();
  if (HasServerTiming(reply) && call_->HasMetadata(kWantTimingMetadata)) {
    call_->AddTrailer(kServerTimingMetadata, ServerTiming(reply.times));
  }
  if (!reply.status.ok()) return call_->Finish(reply.status);
  call_->WriteAndFinish(reply.message.ToByteBuffer());
}

}  // namespace swiglu::server
