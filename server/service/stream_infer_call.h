// SPDX-License-Identifier: Apache-2.0
//
// The ModelStreamInfer call: takes many requests, and sends each answer as soon as it is ready. An
// error is sent as an answer, and the stream stays open. But if the caller sends the metadata
// `triton_grpc_error: true`, an error ends the stream with the error's code, and the stream's other
// requests get no answer.
#pragma once

#include <deque>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/service/active_requests.h"
#include "server/service/infer_dependencies.h"
#include "server/transport/call.h"

namespace swiglu::server {

class StreamInferCall final : public CallHandler {
 public:
  // How many requests of one stream may be unanswered at the same time. At this number, reading
  // stops until an answer is written.
  static constexpr int kMaxUnanswered = 128;

  // `call` owns this object.
  StreamInferCall(Call* call, const InferDependencies& parts) : call_(call), parts_(parts) {}

  void OnStart() override;
  void OnMessage(grpc::ByteBuffer& message) override;
  void OnNoMessage() override;
  void OnWritten(bool ok) override;
  void OnGone(bool cancelled) override;
  void OnServerEvent(ServerEvent event) override;

 private:
  struct Answer {
    EncodedMessage message;
    Charge charge;  // of an answer that is an error
    ActiveRequests::Token token;
    const Model* model;
    Clock::time_point started;
    Clock::time_point answered;
  };

  // Runs on any thread.
  void OnReply(InferReply reply, ActiveRequests::Token token);
  // Whether the stream still takes requests and gives answers.
  bool IsOpen() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !broken_ && failure_.ok(); }
  // Begins to read the next message if the stream may take one.
  void ReadOn() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Begins to write the front answer.
  void WriteFront() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Ends the call if the awaited message cannot go on.
  void EndForOverrun();
  // If the awaited message cannot go on, sets `failure_` and returns it. Otherwise returns OK.
  absl::Status TakeOverrun();
  // Cancels the call if its caller stalls in taking an answer.
  void CheckStall() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // If `failure_` is set, ends the call with it as soon as no answer is left to write. Otherwise
  // ends the call if no request is open and none will come.
  void FinishIfIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Call* const call_;
  const InferDependencies parts_;
  bool ends_on_error_ = false;  // set by OnStart

  // Whether the server drains, so that the stream takes no more requests.
  bool draining() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return draining_since_ != Clock::time_point::max();
  }

  // In use while `reading_`. Only the handler's methods touch it.
  MessageWatch::Entry awaited_;

  absl::Mutex mutex_;
  // Requests that have been read and whose answers have not been written.
  int num_unanswered_ ABSL_GUARDED_BY(mutex_) = 0;
  // The front answer is being written.
  std::deque<Answer> answers_ ABSL_GUARDED_BY(mutex_);
  Clock::time_point write_began_ ABSL_GUARDED_BY(mutex_);
  // When the server began to drain; `max()`: it has not.
  Clock::time_point draining_since_ ABSL_GUARDED_BY(mutex_) = Clock::time_point::max();
  bool has_read_ ABSL_GUARDED_BY(mutex_) = false;  // a message has come
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool no_more_ ABSL_GUARDED_BY(mutex_) = false;  // the caller sends nothing more
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;   // nothing can be written any more
  // The error that the stream ends with once the answers before it are written; OK: none.
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace swiglu::server
