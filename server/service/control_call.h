// SPDX-License-Identifier: Apache-2.0
//
// The unary calls without tensors, and the common base of all calls without tensors. Also the calls
// that are refused before their message is read.
#pragma once

#include <atomic>
#include <functional>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "server/service/infer_dependencies.h"
#include "server/transport/call.h"

namespace swiglu::server {

// A control method gives `done` the response message or an error, at once or later, on any thread.
// It does not block.
using ControlDone = absl::AnyInvocable<void(const absl::StatusOr<grpc::ByteBuffer>& response)>;
using ControlMethod = std::function<void(Call& call, grpc::ByteBuffer request, ControlDone done)>;

// The common part of the calls whose messages carry no tensors. If the caller is late to send a
// message or to take an answer, the call ends.
class SmallCall : public CallHandler {
 public:
  void OnStart() override;
  void OnMessage(grpc::ByteBuffer& message) override;
  void OnGone(bool) override;
  void OnServerEvent(ServerEvent event) override;

 protected:
  // `call` owns this object.
  SmallCall(Call* call, const InferDependencies& parts) : call_(call), parts_(parts) {}

  // The message is there, and the call has not ended.
  virtual void OnRequest(grpc::ByteBuffer& message) = 0;
  // Begins to wait for a message. The time limit counts from `start`.
  void Read(Clock::time_point start);
  // Ends the call, once.
  void Finish(const absl::Status& status);

  Call* const call_;
  const InferDependencies parts_;
  MessageWatch::Entry awaited_;
  bool writing_ = false;
  std::atomic<bool> finished_{false};
  // The time by which the awaited message must be there, or by which the answer must be written.
  // `max()`: nothing is due.
  std::atomic<Clock::time_point> due_{};
};

// Control calls are answered during a drain, too. Above all, health checks must not fail then.
class ControlCall final : public SmallCall {
 public:
  // `method` must outlive it.
  ControlCall(Call* call, const ControlMethod* method, const InferDependencies& parts)
      : SmallCall(call, parts), method_(method) {}

  void OnNoMessage() override;
  void OnWritten(bool) override {
    due_ = Clock::time_point::max();
    charge_ = Charge();
  }
  void OnGone(bool) override { due_ = Clock::time_point::max(); }

 private:
  void OnRequest(grpc::ByteBuffer& message) override;
  // Ends the call, once. Any thread may call it. REQUIRES: the message is there.
  void Answer(const absl::StatusOr<grpc::ByteBuffer>& response);

  const ControlMethod* const method_;
  Charge charge_;  // of a large answer, until it is written
};

// Ends a call with a fixed error, without reading its message.
class RefusedCall final : public CallHandler {
 public:
  // Adds one to `num_refused` until the handler is destroyed.
  RefusedCall(Call* call, absl::Status status, std::atomic<int64_t>* num_refused)
      : call_(call), status_(std::move(status)), num_refused_(num_refused) {
    num_refused_->fetch_add(1, std::memory_order_relaxed);
  }
  ~RefusedCall() override { num_refused_->fetch_sub(1, std::memory_order_relaxed); }

  const absl::Status& status() const { return status_; }

  void OnStart() override { call_->Finish(status_); }
  void OnMessage(grpc::ByteBuffer&) override {}
  void OnNoMessage() override {}
  void OnWritten(bool) override {}
  void OnGone(bool) override {}
  void OnServerEvent(ServerEvent) override {}

 private:
  Call* const call_;
  const absl::Status status_;
  std::atomic<int64_t>* const num_refused_;
};

}  // namespace swiglu::server
