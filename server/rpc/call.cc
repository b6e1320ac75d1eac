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
  DeliverAll();
}

void Call::OnGone(bool) {
  const bool cancelled = context_.IsCancelled();
  if (cancelled) cancelled_.store(true, std::memory_order_relaxed);
  home_->OnGone(*this);
  Deliver(Signal::kGone, cancelled ? kTrue : kFalse);
}

void Call::Deliver(Signal signal, uint8_t what) {
  {
    absl::MutexLock lock(&mutex_);
    signals_[static_cast<int>(signal)] |= what;
    if (delivering_) return;
    delivering_ = true;
  }
  DeliverAll();
}

void Call::DeliverAll() {
  while (true) {
    Signals signals = {};
    {
      absl::MutexLock lock(&mutex_);
      std::swap(signals, signals_);
      if (signals == Signals()) {
        delivering_ = false;
        return;
      }
    }
    Tell(signals);
  }
}

void Call::Tell(const Signals& signals) {
  if (const uint8_t read = signals[static_cast<int>(Signal::kRead)]; read == kTrue) {
    // Moved out, so that the handler alone decides when the bytes are let go.
    grpc::ByteBuffer message;
    message.Swap(&message_);
    const LongWork work(tasks(), message.Length() >= kLongMessageBytes);
    handler_->OnMessage(std::move(message));
  } else if (read == kFalse) {
    handler_->OnNoMessage();
  }
  if (const uint8_t written = signals[static_cast<int>(Signal::kWritten)]; written != 0) {
    handler_->OnWritten(written == kTrue);
  }
  const uint8_t events = signals[static_cast<int>(Signal::kServerEvent)];
  for (int event = 0; event < kNumServerEvents; ++event) {
    if (events & (1 << event)) handler_->OnServerEvent(static_cast<ServerEvent>(event));
  }
  if (const uint8_t gone = signals[static_cast<int>(Signal::kGone)]; gone != 0) {
    handler_->OnGone(gone == kTrue);
  }
}

}  // namespace swiglu::server
