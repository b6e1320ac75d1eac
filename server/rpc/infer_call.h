// SPDX-License-Identifier: Apache-2.0
//
// The ModelInfer call: headers → size and drain checks → one message → one answer.
#pragma once

#include <atomic>
#include <memory>

#include "server/batching/observer.h"
#include "server/rpc/active_requests.h"
#include "server/rpc/call.h"
#include "server/rpc/infer_service.h"

namespace swiglu::server {

class InferCall final : public CallHandler {
 public:
  // All parts must outlive it; `call` owns it.
  InferCall(Call* call, InferService* service, ActiveRequests* active, Observer* observer)
      : call_(call), service_(service), active_(active), observer_(observer) {}

  void OnStart() override;
  void OnMessage(grpc::ByteBuffer message) override;
  void OnNoMessage() override;
  void OnWritten(bool ok) override;
  void OnGone(bool cancelled) override;
  void OnServerEvent(ServerEvent event) override;

 private:
  enum class State {
    kAwaitingMessage,
    kStarted,  // the message is there: its answer ends the call
    kRefused,  // ended without its message; one that still comes is dropped
    kMissing,  // likewise, because the caller sent none
  };

  // Ends the call before its message came.
  void Refuse(absl::Status status);
  // Any thread.
  void Answer(const InferReply& reply);

  Call* const call_;
  InferService* const service_;
  ActiveRequests* const active_;
  Observer* const observer_;

  const std::shared_ptr<std::atomic<bool>> cancelled_ = std::make_shared<std::atomic<bool>>(false);
  State state_ = State::kAwaitingMessage;
  absl::Status refusal_;  // of kRefused and kMissing
  // Set by Answer, read once the answer is written.
  ActiveRequests::Token token_;
  const Model* model_ = nullptr;
  Clock::time_point answered_;
};

}  // namespace swiglu::server
