// SPDX-License-Identifier: Apache-2.0
//
// The ModelInfer call: headers → room for the message → one message → one answer.
#pragma once

#include <atomic>

#include "server/batching/admission.h"
#include "server/service/active_requests.h"
#include "server/service/infer_dependencies.h"
#include "server/transport/call.h"

namespace swiglu::server {

class InferCall final : public CallHandler {
 public:
  // `call` owns this object.
  InferCall(Call* call, const InferDependencies& parts) : call_(call), parts_(parts) {}

  void OnStart() override;
  void OnMessage(grpc::ByteBuffer& message) override;
  void OnNoMessage() override;
  void OnWritten(bool ok) override;
  void OnGone(bool cancelled) override;
  void OnServerEvent(ServerEvent event) override;

 private:
  enum class State {
    kAwaitingMessage,
    kStarted,  // the message is there: its answer ends the call
    kRefused,  // ended without its message, which is dropped if it still comes
    kMissing,  // ended because the caller sent no whole message
  };

  // Ends the call, whose message has not arrived.
  void Refuse(absl::Status status);
  // Runs on any thread.
  void Answer(const InferReply& reply);
  // Ends the call if its caller stalls.
  void CheckStall();

  Call* const call_;
  const InferDependencies parts_;

  State state_ = State::kAwaitingMessage;
  absl::Status refusal_;  // of kRefused and kMissing
  // The awaited message, with what is reserved for it.
  MessageWatch::Entry awaited_;
  bool size_announced_ = false;
  Clock::time_point message_due_;
  // Set by Answer, read once the answer is written.
  ActiveRequests::Token token_;
  const Model* model_ = nullptr;
  Clock::time_point answered_;
  int64_t answer_bytes_ = 0;
  Charge answer_charge_;  // if the answer is an error
  // When the server began to drain; `max()`: it has not.
  Clock::time_point draining_since_ = Clock::time_point::max();
  // The time by which the answer must be written. `Answer` sets this member last.
  std::atomic<Clock::time_point> answer_due_{Clock::time_point::max()};
};

}  // namespace swiglu::server
