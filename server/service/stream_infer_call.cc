// SPDX-License-Identifier: Apache-2.0
//
// The streaming inference call. Answers come from any thread; one lock orders them. gRPC's calls
// are started under it: they only queue work and never call back.
#include "server/service/stream_infer_call.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "server/codec/errors.h"
#include "server/core/retry.h"

namespace swiglu::server {

void StreamInferCall::OnStart() {
  ends_on_error_ = call_->Metadata("triton_grpc_error") == "true";
  awaited_.BindStream(parts_.watch, call_);
  absl::MutexLock lock(&mutex_);
  ReadOn();
}

void StreamInferCall::OnMessage(grpc::ByteBuffer& bytes) {
  Charge charge;
  {
    absl::MutexLock lock(&mutex_);
    charge = awaited_.Arrive(static_cast<int64_t>(bytes.Length()));
    reading_ = false;
    has_read_ = true;
    // It crossed the end of the call: nobody can be told of it.
    if (finished_ || !failure_.ok()) return;
    ++num_unanswered_;
  }
  ReceivedMessage message(bytes, std::move(charge));
  message.source = awaited_.source();
  InferContext context{Clock::now(), call_->Deadline(), call_->cancelled(), &call_->tasks(), call_};
  parts_.service->Start(
      std::move(message), std::move(context),
      [this, call = call_->shared_from_this(), token = ActiveRequests::Token(parts_.active)](
          InferReply reply) mutable { OnReply(std::move(reply), std::move(token)); });
  absl::MutexLock lock(&mutex_);
  ReadOn();
}

void StreamInferCall::OnNoMessage() {
  absl::MutexLock lock(&mutex_);
  awaited_.Drop();
  reading_ = false;
  no_more_ = true;
  FinishIfIdle();
}

void StreamInferCall::OnReply(InferReply reply, ActiveRequests::Token token) {
  Answer answer;
  answer.message = reply.status.ok() ? WrapForStream(std::move(reply.message), reply.identity)
                                     : EncodeStreamError(reply.identity, reply.status.message());
  answer.token = std::move(token);
  answer.token.Answered();
  // What an answer of tensors takes is charged with them.
  if (!reply.status.ok()) {
    answer.charge = parts_.service->ChargeAnswer(static_cast<int64_t>(answer.message.size_bytes));
  }
  answer.model = reply.model;
  answer.started = reply.started;
  answer.answered = reply.ended;
  absl::MutexLock lock(&mutex_);
  if (ends_on_error_ && failure_.ok()) failure_ = std::move(reply.status);
  if (!IsOpen()) {
    --num_unanswered_;
    return FinishIfIdle();
  }
  answers_.push_back(std::move(answer));
  if (answers_.size() == 1) WriteFront();
}

void StreamInferCall::OnWritten(bool ok) {
  absl::MutexLock lock(&mutex_);
  if (finished_) return;
  if (!ok) {
    broken_ = true;
    num_unanswered_ -= static_cast<int>(answers_.size());
    answers_.clear();
    return;
  }
  const Answer& written = answers_.front();
  const Clock::time_point now = Clock::now();
  parts_.observer->RequestSent(written.model, now - written.started, now - written.answered);
  answers_.pop_front();
  --num_unanswered_;
  if (!answers_.empty()) WriteFront();
  ReadOn();
  FinishIfIdle();
}

void StreamInferCall::OnGone(bool cancelled) {
  if (!cancelled) return;
  {
    absl::MutexLock lock(&mutex_);
    broken_ = true;
  }
  parts_.service->Cancel(*call_->cancelled());
}

void StreamInferCall::OnServerEvent(ServerEvent event) {
  if (event == ServerEvent::kOverrun) return EndForOverrun();
  absl::MutexLock lock(&mutex_);
  if (event == ServerEvent::kTick) CheckStall();
  if (event != ServerEvent::kDraining) return;
  draining_since_ = std::min(draining_since_, Clock::now());
  FinishIfIdle();
}

void StreamInferCall::ReadOn() {
  if (reading_ || no_more_ || finished_ || !IsOpen() || draining() ||
      num_unanswered_ >= kMaxUnanswered) {
    return;
  }
  // Whoever takes no answers is given no more of them once answers fill their half of the budget.
  if (!answers_.empty() && !parts_.service->HasRoomForAnswers()) return;
  reading_ = true;
  awaited_.Begin(Charge(), AwaitedKind::kOfStream, parts_.service->max_unannounced_bytes());
  call_->Read();
}

void StreamInferCall::EndForOverrun() {
  const absl::Status failure = TakeOverrun();
  if (failure.ok()) return;
  parts_.service->ReportUnstarted(failure, call_, Clock::now());
  absl::MutexLock lock(&mutex_);
  // A status comes after the answers that are being written, and what is received until then would
  // have no bound.
  if (!answers_.empty()) return call_->Cancel();
  FinishIfIdle();
}

absl::Status StreamInferCall::TakeOverrun() {
  absl::MutexLock lock(&mutex_);
  const std::optional<Overrun> overrun = awaited_.TakeOverrun();
  if (!overrun.has_value() || !reading_ || finished_ || !IsOpen()) return absl::OkStatus();
  // From here on the message is not taken, even if it comes whole.
  failure_ = overrun->reason == Rejection::kDeadline
                 ? errors::LateMessage(absl::FromChrono(parts_.stall_limit.base))
                 : parts_.service->RefusalOf(*overrun, awaited_.source());
  return failure_;
}

void StreamInferCall::WriteFront() {
  write_began_ = Clock::now();
  call_->Write(answers_.front().message.ToByteBuffer());
}

void StreamInferCall::CheckStall() {
  if (answers_.empty()) return;
  const auto size_bytes = static_cast<int64_t>(answers_.front().message.size_bytes);
  Clock::time_point due = parts_.stall_limit.Due(write_began_, size_bytes);
  if (draining()) {
    const Clock::time_point start = std::max(write_began_, draining_since_);
    due = std::min(due, parts_.stall_limit.InDrain().Due(start, size_bytes));
  }
  if (Clock::now() > due) call_->Cancel();
}

void StreamInferCall::FinishIfIdle() {
  if (finished_ || broken_) return;
  if (!failure_.ok() && answers_.empty()) {
    finished_ = true;
    if (errors::IsRetryable(failure_)) parts_.observer->RetryAdvised();
    return call_->Finish(failure_);
  }
  if (num_unanswered_ > 0 || !(no_more_ || draining())) return;
  finished_ = true;
  if (!no_more_) parts_.observer->RetryAdvised();
  if (!no_more_) return call_->Finish(errors::Draining());
  // A stream for nothing has an error, since its only message may have been cut off.
  call_->Finish(has_read_ ? absl::OkStatus() : errors::NoWholeMessage("ModelInferRequest"));
}

}  // namespace swiglu::server
