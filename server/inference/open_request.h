// SPDX-License-Identifier: Apache-2.0
//
// A request from its arrival to its answer: who sent it, who gets the answer, and the one record
// that reports its end. This file depends neither on calls nor on how a request is served.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "server/codec/infer_encoder.h"
#include "server/core/clock.h"
#include "server/core/model.h"
#include "server/core/observer.h"
#include "server/core/phase_times.h"
#include "server/core/task_queue.h"
#include "server/inference/region_tensors.h"

namespace swiglu::server {

// What the call knows about a request, apart from its message.
struct InferContext {
  // When the call's headers had arrived; for a request of a stream, when its message was whole.
  Clock::time_point started;
  // The caller's deadline.
  Clock::time_point deadline = Clock::time_point::max();
  // Set when the caller has gone. Never null.
  std::shared_ptr<const std::atomic<bool>> cancelled;
  // The I/O threads that work on the chunks of a large request. Most requests also end on these
  // threads. Never null.
  TaskQueue* tasks = nullptr;
  // Who sent the request. It must live until the request is answered; nullptr: unknown.
  const RequestOrigin* origin = nullptr;
};

// The answer. It has a `message` only if `status` is OK.
struct InferReply {
  absl::Status status;
  const Model* model = nullptr;  // nullptr if the request named no known model
  InferIdentity identity;
  EncodedMessage message;
  Clock::time_point started;
  Clock::time_point ended;
  PhaseTimes times;
};

// Ends exactly once, by `Answer` or `Fail`. Not thread-safe.
class OpenRequest {
 public:
  using Done = absl::AnyInvocable<void(InferReply)>;

  // A request whose message has `bytes_in` bytes. At its end, first `observer` gets the record,
  // then `done` the answer. `observer` must outlive the request.
  OpenRequest(Observer* observer, InferContext context, int64_t bytes_in, Done done);

  // Sets what the message says about the request. If the server does not have the model, `model` is
  // nullptr, and `identity` has the model's name.
  void Identify(const Model* model, InferIdentity identity);

  const InferContext& context() const { return context_; }
  const InferIdentity& identity() const { return identity_; }

  // `regions`: the bytes that went through regions; nullptr: none.
  void Answer(EncodedMessage message, int64_t num_elements, const PhaseTimes& times,
              const RegionTensors* regions);
  // REQUIRES: `status` is an error, and everything that the request held has been freed.
  void Fail(absl::Status status, const PhaseTimes& times);

 private:
  void End(RequestRecord record, EncodedMessage message);

  Observer* observer_;
  InferContext context_;
  int64_t bytes_in_;
  Done done_;
  const Model* model_ = nullptr;
  InferIdentity identity_;
};

}  // namespace swiglu::server
