// SPDX-License-Identifier: Apache-2.0
//
// The ModelStreamInfer call: many requests in, answers out as they finish. An error is an answer;
// the stream stays open. If the caller sends the metadata `triton_grpc_error: true`, an error
// instead ends the stream, with the code of the error. The caller's other requests then get no
// answer.
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

  // `call` owns it.
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
    Charge charge;  // of an error
    ActiveRequests::Token token;
    const Model* model;
    Clock::time_point started;
    Clock::time_point answered;
  };

  // Any thread.
  void OnReply(InferReply reply, ActiveRequests::Token token);
  // Whether the stream still takes requests and gives answers.
  bool IsOpen() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !broken_ && failure_.ok(); }
  // Reads on if one more message may come.
  void ReadOn() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Begins to write the front answer.
  void WriteFront() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Ends the call if the message that is awaited cannot go on.
  void EndForOverrun();
  // The error with which the call then ends, and which is set; else OK.
  absl::Status TakeOverrun();
  // Breaks the call off if its caller takes no answers.
  void CheckStall() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Ends the call if nothing is left to do and no more will come, or with `failure_`.
  void FinishIfIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Call* const call_;
  const InferDependencies parts_;
  bool ends_on_error_ = false;  // set by OnStart

  // The server takes nothing more.
  bool draining() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return draining_since_ != Clock::time_point::max();
  }

  // In use while `reading_`. Only the handler's methods touch it.
  MessageWatch::Entry awaited_;

  absl::Mutex mutex_;
  // Read and not yet written.
  int num_unanswered_ ABSL_GUARDED_BY(mutex_) = 0;
  // The front one is being written.
  std::deque<Answer> answers_ ABSL_GUARDED_BY(mutex_);
  Clock::time_point write_began_ ABSL_GUARDED_BY(mutex_);
  // When the server began to drain; `max()`: it does not.
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
