// SPDX-License-Identifier: Apache-2.0
//
// The unary control call. See the header.
#include "server/rpc/control_call.h"

#include "server/rpc/errors.h"
#include "server/rpc/messages.h"

namespace swiglu::server {

void ControlCall::OnStart() {
  due_ = stall_limit_.Due(call_->started(), kMaxControlMessageBytes);
  call_->Read();
}

void ControlCall::OnMessage(grpc::ByteBuffer message) {
  if (answered_) return;
  absl::StatusOr<grpc::ByteBuffer> response = (*method_)(std::move(message));
  if (!response.ok()) return Finish(response.status());
  answered_ = true;
  due_ = stall_limit_.Due(Clock::now(), static_cast<int64_t>(response->Length()));
  call_->WriteAndFinish(*response);
}

void ControlCall::OnNoMessage() { Finish(errors::NoWholeMessage("request")); }

void ControlCall::OnServerEvent(ServerEvent event) {
  if (event != ServerEvent::kTick || Clock::now() <= due_) return;
  if (answered_) return call_->Cancel();
  Finish(errors::LateMessage(absl::FromChrono(due_ - call_->started())));
}

void ControlCall::Finish(const absl::Status& status) {
  if (answered_) return;
  answered_ = true;
  due_ = stall_limit_.Due(Clock::now(), 0);
  call_->Finish(status);
}

}  // namespace swiglu::server
