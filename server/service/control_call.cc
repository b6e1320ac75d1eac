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
  due_ = Clock::time_point::max();
  (*method_)(*call_, std::move(message),
             [call = call_->shared_from_this()](const absl::StatusOr<grpc::ByteBuffer>& response) {
               static_cast<ControlCall&>(call->handler()).Answer(response);
             });
}

void ControlCall::OnNoMessage() {
  awaited_.Drop();
  Answer(errors::NoWholeMessage("request"));
}

void ControlCall::OnServerEvent(ServerEvent event) {
  if (event == ServerEvent::kOverrun) {
    if (const auto overrun = awaited_.TakeOverrun()) {
      awaited_.Drop();
      Answer(WhyControlOverrun(*overrun, parts_));
    }
  }
  const Clock::time_point due = due_;
  if (event != ServerEvent::kTick || Clock::now() <= due) return;
  if (answered_) return call_->Cancel();
  awaited_.Drop();
  Answer(errors::LateMessage(absl::FromChrono(due - call_->started())));
}

void ControlCall::Answer(const absl::StatusOr<grpc::ByteBuffer>& response) {
  if (answered_.exchange(true)) return;
  const int64_t bytes = response.ok() ? static_cast<int64_t>(response->Length()) : 0;
  due_ = parts_.stall_limit.Due(Clock::now(), bytes);
  if (response.ok()) return call_->WriteAndFinish(*response);
  call_->Finish(response.status());
}

}  // namespace swiglu::server
