// SPDX-License-Identifier: Apache-2.0
//
// Health states and the Watch call.
#include "server/service/health.h"

#include "server/inference/errors.h"
#include "server/service/control_call.h"
#include "server/service/messages.h"

namespace swiglu::server {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

HealthCheckResponse::ServingStatus Health::Check(const std::string& service) const {
  bool good = false;
  if (service.empty() || service == "inference.GRPCInferenceService") {
    good = ready();
  } else if (service == "liveness") {
    good = live();
  } else {
    return HealthCheckResponse::SERVICE_UNKNOWN;
  }
  return good ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING;
}

void HealthWatchCall::OnStart() {
  due_ = parts_.stall_limit.Due(call_->started(), kMaxControlMessageBytes);
  awaited_.Bind(parts_.watch, call_);
  AwaitControlMessage(awaited_);
  call_->Read();
}

void HealthWatchCall::OnMessage(grpc::ByteBuffer& message) {
  awaited_.Arrive(static_cast<int64_t>(message.Length()));
  if (finished_) return;
  due_ = Clock::time_point::max();
  HealthCheckRequest request;
  const absl::Status status = ParseMessage(message, &request);
  if (!status.ok()) return Finish(status);
  service_ = request.service();
  Advance();
}

void HealthWatchCall::OnNoMessage() { Finish(errors::NoWholeMessage("HealthCheckRequest")); }

void HealthWatchCall::OnWritten(bool ok) {
  writing_ = false;
  due_ = Clock::time_point::max();
  if (!ok) finished_ = true;
  Advance();
}

void HealthWatchCall::OnGone(bool) {
  finished_ = true;
  due_ = Clock::time_point::max();
}

void HealthWatchCall::OnServerEvent(ServerEvent event) {
  if (event == ServerEvent::kTick) CheckStall();
  if (event == ServerEvent::kOverrun) {
    if (const auto overrun = awaited_.TakeOverrun()) Finish(WhyControlOverrun(*overrun, parts_));
  }
  if (event == ServerEvent::kDraining) draining_ = true;
  Advance();
}

void HealthWatchCall::Advance() {
  if (writing_ || finished_) return;
  if (service_.has_value()) {
    const auto state = health_->Check(*service_);
    if (state != sent_) {
      HealthCheckResponse response;
      response.set_status(state);
      sent_ = state;
      writing_ = true;
      due_ = parts_.stall_limit.Due(Clock::now(), 0);
      call_->Write(SerializeMessage(response));
      return;
    }
  }
  if (draining_) Finish(errors::Draining());
}

void HealthWatchCall::CheckStall() {
  if (Clock::now() <= due_) return;
  if (writing_ || finished_) return call_->Cancel();
  Finish(errors::LateMessage(absl::FromChrono(due_ - call_->started())));
}

void HealthWatchCall::Finish(const absl::Status& status) {
  if (finished_) return;
  finished_ = true;
  awaited_.Drop();
  due_ = parts_.stall_limit.Due(Clock::now(), 0);
  call_->Finish(status);
}

}  // namespace swiglu::server
