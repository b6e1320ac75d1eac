// SPDX-License-Identifier: Apache-2.0
//
// gRPC's generic asynchronous call behind the handler interface.
#include "server/rpc/call.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/rpc/errors.h"

namespace swiglu::server {
namespace {

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

}  // namespace

void Call::Accept(grpc::AsyncGenericService* service, grpc::ServerCompletionQueue* queue) {
  context_.AsyncNotifyWhenDone(gone_.Arm(shared_from_this()));
  service->RequestCall(&context_, &stream_, queue, queue, accepted_.Arm(shared_from_this()));
}

Clock::time_point Call::Deadline() const {
  const auto deadline = context_.deadline();
  const auto now = std::chrono::system_clock::now();
  // A year stands for "none": gRPC says "none" with a far point of its own.
  if (deadline - now > std::chrono::hours(24 * 365)) return Clock::time_point::max();
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(deadline - now);
}

std::string Call::Metadata(const std::string& key) const {
  const auto& metadata = context_.client_metadata();
  const auto found = metadata.find(key);
  if (found == metadata.end()) return "";
  return std::string(found->second.data(), found->second.size());
}

void Call::Read() { stream_.Read(&message_, read_.Arm(shared_from_this())); }

void Call::Write(const grpc::ByteBuffer& message) {
  stream_.Write(message, written_.Arm(shared_from_this()));
}

void Call::WriteAndFinish(const grpc::ByteBuffer& message) {
  stream_.WriteAndFinish(message, grpc::WriteOptions(), grpc::Status::OK,
                         written_.Arm(shared_from_this()));
}

void Call::Finish(const absl::Status& status) {
  if (errors::IsRetryable(status)) {
    context_.AddTrailingMetadata("grpc-retry-pushback-ms", absl::StrCat(errors::kRetryPushbackMs));
  }
  stream_.Finish(ToGrpc(status), written_.Arm(shared_from_this()));
}

void Call::OnAccepted(bool ok) {
  if (!ok) {
    // The server shuts down; the end of a call that never began is not reported.
    gone_.Disarm();
    return;
  }
  started_ = Clock::now();
  handler_ = home_->OnAccepted(*this);
  handler_->OnStart();
}

void Call::OnRead(bool ok) {
  if (!ok) return handler_->OnNoMessage();
  // Moved out, so that the handler alone decides when the bytes are let go.
  grpc::ByteBuffer message;
  message.Swap(&message_);
  handler_->OnMessage(std::move(message));
}

void Call::OnGone(bool) {
  handler_->OnGone(context_.IsCancelled());
  home_->OnGone(*this);
}

}  // namespace swiglu::server
