// SPDX-License-Identifier: Apache-2.0
//
// Health states and the Watch call.
#include "server/service/health.h"

#include "server/codec/errors.h"
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

void HealthWatchCall::OnRequest(grpc::ByteBuffer& message) {
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

void HealthWatchCall::OnServerEvent(ServerEvent event) {
  SmallCall::OnServerEvent(event);
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

}  // namespace swiglu::server
