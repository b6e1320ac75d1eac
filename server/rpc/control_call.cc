// SPDX-License-Identifier: Apache-2.0
//
// The unary control call. See the header.
#include "server/rpc/control_call.h"

#include "server/rpc/errors.h"

namespace swiglu::server {

void ControlCall::OnMessage(grpc::ByteBuffer message) {
  absl::StatusOr<grpc::ByteBuffer> response = (*method_)(std::move(message));
  if (!response.ok()) return call_->Finish(response.status());
  call_->WriteAndFinish(*response);
}

void ControlCall::OnNoMessage() { call_->Finish(errors::NoWholeMessage("request")); }

}  // namespace swiglu::server
