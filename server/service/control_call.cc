// SPDX-License-Identifier: Apache-2.0
//
// The unary control call. See the header.
#include "server/service/control_call.h"

#include "server/inference/errors.h"
#include "server/service/messages.h"

namespace swiglu::server {

void AwaitControlMessage(MessageWatch::Entry& awaited) {
  awaited.Begin(Charge(), AwaitedKind::kUnannounced, kMaxControlMessageBytes);
}

absl::Status WhyControlOverrun(const Overrun& overrun, const InferDependencies& parts) {
  return overrun.reason == Rejection::kTooLarge
             ? errors::MessageOutgrows(kMaxControlMessageBytes)
             : errors::BudgetInUse(parts.service->memory_budget_bytes());
}

void ControlCall::OnStart() {
  due_ = parts_.stall_limit.Due(call_->started(), kMaxControlMessageBytes);
  awaited_.Bind(parts_.watch, call_);
  AwaitControlMessage(awaited_);
  call_->Read();
}

void ControlCall::OnMessage(grpc::ByteBuffer& message) {
  awaited_.Arrive(static_cast<int64_t>(message.Length()));
  if (answered_) return;
  absl::StatusOr<grpc::ByteBuffer> response = (*method_)(std::move(message));
  if (!response.ok()) return Finish(response.status());
  answered_ = true;
  due_ = parts_.stall_limit.Due(Clock::now(), static_cast<int64_t>(response->Length()));
  call_->WriteAndFinish(*response);
}

void ControlCall::OnNoMessage() { Finish(errors::NoWholeMessage("request")); }

void ControlCall::OnServerEvent(ServerEvent event) {
  if (event == ServerEvent::kOverrun) {
    if (const auto overrun = awaited_.TakeOverrun()) Finish(WhyControlOverrun(*overrun, parts_));
  }
  if (event != ServerEvent::kTick || Clock::now() <= due_) return;
  if (answered_) return call_->Cancel();
  Finish(errors::LateMessage(absl::FromChrono(due_ - call_->started())));
}

void ControlCall::Finish(const absl::Status& status) {
  if (answered_) return;
  answered_ = true;
  awaited_.Drop();
  due_ = parts_.stall_limit.Due(Clock::now(), 0);
  call_->Finish(status);
}

}  // namespace swiglu::server
