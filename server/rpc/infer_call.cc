// SPDX-License-Identifier: Apache-2.0
//
// The unary inference call. See the header.
#include "server/rpc/infer_call.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "server/rpc/errors.h"

namespace swiglu::server {

void InferCall::OnStart() {
  if (service_->admission().draining()) return Refuse(errors::Draining());
  // A caller that announces its size is refused before it has sent the payload.
  int64_t announced_bytes = 0;
  if (absl::SimpleAtoi(call_->Metadata("swiglu-request-bytes"), &announced_bytes)) {
    absl::Status status = service_->CheckAnnouncedSize(announced_bytes);
    if (!status.ok()) return Refuse(std::move(status));
  }
  call_->Read();
}

void InferCall::OnMessage(grpc::ByteBuffer message) {
  if (state_ != State::kAwaitingMessage) return;
  state_ = State::kStarted;
  token_ = ActiveRequests::Token(active_);
  service_->Start(std::move(message), {call_->started(), call_->Deadline(), cancelled_},
                  [this, call = call_->shared_from_this()](InferReply reply) { Answer(reply); });
}

void InferCall::OnNoMessage() {
  if (state_ != State::kAwaitingMessage) return;
  Refuse(errors::Malformed("ModelInferRequest", "the call has no message"));
  state_ = State::kMissing;
}

void InferCall::OnWritten(bool ok) {
  const Clock::time_point now = Clock::now();
  if (ok && state_ == State::kStarted) {
    observer_->RequestSent(model_, now - call_->started(), now - answered_);
  }
  token_ = ActiveRequests::Token();
}

void InferCall::OnGone(bool cancelled) {
  if (cancelled) cancelled_->store(true, std::memory_order_relaxed);
  if (state_ == State::kStarted) return;
  // A refusal of ours stands; a message that is missing has its reason here.
  if (cancelled && state_ != State::kRefused) {
    refusal_ = Clock::now() >= call_->Deadline()
                   ? absl::DeadlineExceededError("deadline passed before the message")
                   : absl::CancelledError("cancelled by the caller before its message");
  }
  state_ = State::kRefused;
  service_->ReportUnstarted(refusal_, call_->started());
}

void InferCall::OnServerEvent(ServerEvent event) {
  if (event != ServerEvent::kDraining || state_ != State::kAwaitingMessage) return;
  Refuse(errors::Draining());
}

void InferCall::Refuse(absl::Status status) {
  state_ = State::kRefused;
  refusal_ = std::move(status);
  call_->Finish(refusal_);
}

void InferCall::Answer(const InferReply& reply) {
  model_ = reply.model;
  answered_ = Clock::now();
  if (reply.status.ok()) {
    call_->WriteAndFinish(reply.message.ToByteBuffer());
  } else {
    call_->Finish(reply.status);
  }
}

}  // namespace swiglu::server
