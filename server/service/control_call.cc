// SPDX-License-Identifier: Apache-2.0
//
// The unary control call. See the header.
#include "server/service/control_call.h"

#include "server/codec/errors.h"
#include "server/service/messages.h"

namespace swiglu::server {
namespace {

// Answers from this size on, such as a long list of regions, count in the memory budget.
constexpr int64_t kChargedAnswerBytes = int64_t{16} << 10;

}  // namespace

void SmallCall::OnStart() {
  awaited_.Bind(parts_.watch, call_);
  Read(call_->started());
}

void SmallCall::Read(Clock::time_point start) {
  due_ = parts_.stall_limit.Due(start, kMaxControlMessageBytes);
  awaited_.Begin(Charge(), AwaitedKind::kUnannounced, kMaxControlMessageBytes);
  call_->Read();
}

void SmallCall::OnMessage(grpc::ByteBuffer& message) {
  awaited_.Arrive(static_cast<int64_t>(message.Length()));
  if (!finished_) OnRequest(message);
}

void SmallCall::OnGone(bool) {
  finished_ = true;
  due_ = Clock::time_point::max();
}

void SmallCall::OnServerEvent(ServerEvent event) {
  if (event == ServerEvent::kOverrun) {
    if (const auto overrun = awaited_.TakeOverrun()) {
      Finish(overrun->reason == Rejection::kTooLarge
                 ? errors::MessageOutgrows(kMaxControlMessageBytes)
                 : errors::BudgetInUse(parts_.service->memory_budget_bytes()));
    }
  }
  if (event != ServerEvent::kTick || Clock::now() <= due_.load()) return;
  if (writing_ || finished_) return call_->Cancel();
  const Clock::time_point start;
  Finish(errors::LateMessage(
      absl::FromChrono(parts_.stall_limit.Due(start, kMaxControlMessageBytes) - start)));
}

void SmallCall::Finish(const absl::Status& status) {
  if (finished_.exchange(true)) return;
  awaited_.Drop();
  due_ = parts_.stall_limit.Due(Clock::now(), 0);
  call_->Finish(status);
}

void ControlCall::OnRequest(grpc::ByteBuffer& message) {
  due_ = Clock::time_point::max();
  (*method_)(*call_, std::move(message),
             [call = call_->shared_from_this()](const absl::StatusOr<grpc::ByteBuffer>& response) {
               static_cast<ControlCall&>(call->handler()).Answer(response);
             });
}

void ControlCall::Answer(const absl::StatusOr<grpc::ByteBuffer>& response) {
  if (finished_.exchange(true)) return;
  const int64_t bytes = response.ok() ? static_cast<int64_t>(response->Length()) : 0;
  due_ = parts_.stall_limit.Due(Clock::now(), bytes);
  if (bytes >= kChargedAnswerBytes) {
    if (!parts_.service->HasRoomForAnswers()) {
      return call_->Finish(errors::BudgetInUse(parts_.service->memory_budget_bytes()));
    }
    charge_ = parts_.service->ChargeAnswer(bytes);
  }
  if (response.ok()) return call_->WriteAndFinish(*response);
  call_->Finish(response.status());
}

void ControlCall::OnNoMessage() { Finish(errors::NoWholeMessage("request")); }

}  // namespace swiglu::server
