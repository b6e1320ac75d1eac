// SPDX-License-Identifier: Apache-2.0
//
// A unary call that is answered from the server's own state: everything but inference and watching.
// A call of a method that does not exist is here, too.
#pragma once

#include <atomic>
#include <functional>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "server/service/infer_dependencies.h"
#include "server/transport/call.h"

namespace swiglu::server {

// Gives `done` the response message, or an error: at once, or later from any thread. Does not
// block.
using ControlDone = absl::AnyInvocable<void(const absl::StatusOr<grpc::ByteBuffer>& response)>;
using ControlMethod = std::function<void(Call& call, grpc::ByteBuffer request, ControlDone done)>;

// Begins to wait for the message of a call that carries no tensors.
void AwaitControlMessage(MessageWatch::Entry& awaited);
// Why such a message cannot go on.
absl::Status WhyControlOverrun(const Overrun& overrun, const InferDependencies& parts);

class ControlCall final : public CallHandler {
 public:
  // `call` owns this object, and `method` must outlive it.
  ControlCall(Call* call, const ControlMethod* method, const InferDependencies& parts)
      : call_(call), method_(method), parts_(parts) {}

  void OnStart() override;
  void OnMessage(grpc::ByteBuffer& message) override;
  void OnNoMessage() override;
  void OnWritten(bool) override { due_ = Clock::time_point::max(); }
  void OnGone(bool) override { due_ = Clock::time_point::max(); }
  // Control calls are answered during a drain, too: health checks, above all, must not fail then.
  void OnServerEvent(ServerEvent event) override;

 private:
  // Ends the call, once. Any thread.
  void Answer(const absl::StatusOr<grpc::ByteBuffer>& response);

  Call* const call_;
  const ControlMethod* const method_;
  const InferDependencies parts_;
  MessageWatch::Entry awaited_;
  std::atomic<bool> answered_{false};
  // The time by which the message must be there. Once the call is answered: the time by which the
  // answer must be written. `max()` in between.
  std::atomic<Clock::time_point> due_{};
};

// Ends a call with a fixed error, without reading its message.
class RefusedCall final : public CallHandler {
 public:
  RefusedCall(Call* call, absl::Status status) : call_(call), status_(std::move(status)) {}

  void OnStart() override { call_->Finish(status_); }
  void OnMessage(grpc::ByteBuffer&) override {}
  void OnNoMessage() override {}
  void OnWritten(bool) override {}
  void OnGone(bool) override {}
  void OnServerEvent(ServerEvent) override {}

 private:
  Call* const call_;
  const absl::Status status_;
};

}  // namespace swiglu::server
