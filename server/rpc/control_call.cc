// SPDX-License-Identifier: Apache-2.0
//
// The unary control call. See the header.
#include "server/rpc/control_call.h"

#include "server/rpc/errors.h"

namespace swiglu::server {

void ControlCall::OnMessage(grpc::ByteBuffer message) {
  if (finished_) return;
  absl::StatusOr<grpc::ByteBuffer> response = (*method_)(std::move(message));
  if (!response.ok()) return Finish(response.status());
  finished_ = true;
  call_->WriteAndFinish(*response);
}

void ControlCall::OnNoMessage() { Finish(errors::Malformed("request", "the call has no message")); }

void ControlCall::OnServerEvent(ServerEvent event) {
  // One whose message is still missing is not waited for.
  if (event == ServerEvent::kDraining) Finish(errors::Draining());
}

void ControlCall::Finish(const absl::Status& status) {
  if (finished_) return;
  finished_ = true;
  call_->Finish(status);
}

}  // namespace swiglu::server
