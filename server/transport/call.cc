// SPDX-License-Identifier: Apache-2.0
//
// gRPC's generic asynchronous call behind the handler interface.
#include "server/transport/call.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "grpc/support/time.h"
#include "server/core/retry.h"
#include "server/transport/caller_deadline.h"

namespace swiglu::server {
namespace {

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

}  // namespace

void Call::Accept(grpc::AsyncGenericService* service) {
  grpc::ServerCompletionQueue* const queue = queue_->queue();
  context_.AsyncNotifyWhenDone(gone_.Arm(shared_from_this()));
  service->RequestCall(&context_, &stream_, queue, queue, accepted_.Arm(shared_from_this()));
}

Clock::time_point Call::Deadline() const {
  const gpr_timespec deadline = context_.raw_deadline();
  return CallerDeadline(gpr_time_sub(deadline, gpr_now(deadline.clock_type)), Clock::now());
}

absl::string_view Call::Metadata(absl::string_view key) const {
  const auto& metadata = context_.client_metadata();
  const auto found = metadata.find(grpc::string_ref(key.data(), key.size()));
  if (found == metadata.end()) return "";
  return {found->second.data(), found->second.size()};
}

bool Call::HasMetadata(absl::string_view key) const {
  const auto& metadata = context_.client_metadata();
  return metadata.find(grpc::string_ref(key.data(), key.size())) != metadata.end();
}

int64_t Call::CountMetadata() const {
  constexpr size_t kEntryBytes = 32;
  size_t bytes = 0;
  for (const auto& [key, value] : context_.client_metadata()) {
    bytes += key.size() + value.size() + kEntryBytes;
  }
  return static_cast<int64_t>(bytes);
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
    AddTrailer("grpc-retry-pushback-ms", absl::StrCat(errors::kRetryPushbackMs));
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
  peer_ = context_.peer();
  metadata_bytes_ = CountMetadata();
  handler_ = home_->OnAccepted(*this);
  handler_->OnStart();
  DeliverAll();
}

void Call::OnGone(bool) {
  const bool cancelled = context_.IsCancelled();
  if (cancelled) cancelled_.store(true, std::memory_order_relaxed);
  home_->OnGone(*this);
  Deliver(cancelled ? kEnded | kCancelled : kEnded);
}

void Call::Deliver(Signals signals) {
  const Signals before = signals_.fetch_or(signals | kDelivering, std::memory_order_acq_rel);
  if ((before & kDelivering) == 0) DeliverAll();
}

void Call::DeliverAll() {
  while (true) {
    const Signals signals = signals_.exchange(kDelivering, std::memory_order_acq_rel);
    if (signals != kDelivering) {
      Tell(signals);
      continue;
    }
    // Ends only if nothing has come in between.
    Signals nothing = kDelivering;
    if (signals_.compare_exchange_strong(nothing, 0, std::memory_order_acq_rel)) return;
  }
}

void Call::Tell(Signals signals) {
  if (signals & kRead) {
    // Moved out, so that the handler alone decides when the bytes are let go.
    grpc::ByteBuffer message;
    message.Swap(&message_);
    const LongWork work(tasks(), LengthOf(static_cast<int64_t>(message.Length())));
    handler_->OnMessage(message);
  }
  if (signals & kNotRead) handler_->OnNoMessage();
  if (signals & (kWritten | kNotWritten)) handler_->OnWritten((signals & kWritten) != 0);
  for (int event = 0; event < kNumServerEvents; ++event) {
    if (signals & (Signals{1} << (kFirstServerEvent + event))) {
      handler_->OnServerEvent(static_cast<ServerEvent>(event));
    }
  }
  if (signals & kEnded) handler_->OnGone((signals & kCancelled) != 0);
}

}  // namespace swiglu::server
