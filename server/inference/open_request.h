// SPDX-License-Identifier: Apache-2.0
//
// A request from its arrival to its answer: who asks, whom to tell, and the one report that it ends
// with. Knows neither calls nor how a request is served.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "server/core/clock.h"
#include "server/core/model.h"
#include "server/core/observer.h"
#include "server/core/phase_times.h"
#include "server/core/task_queue.h"
#include "server/inference/infer_encoder.h"
#include "server/inference/region_tensors.h"

namespace swiglu::server {

// What the call knows about a request, apart from its message.
struct InferContext {
  // When the call's headers were there; for a request of a stream, when its message was whole.
  Clock::time_point started;
  // The caller's deadline.
  Clock::time_point deadline = Clock::time_point::max();
  // Set when the caller has gone. Never null.
  std::shared_ptr<const std::atomic<bool>> cancelled;
  // Where the chunks of a large request are worked on. Never null.
  TaskQueue* tasks = nullptr;
  // Who asks. It must live until the request is answered; nullptr: unknown.
  const RequestOrigin* origin = nullptr;
};

// The answer. Its `message` is encoded only when `status` is OK.
struct InferReply {
  absl::Status status;
  const Model* model = nullptr;  // nullptr if the request named none
  InferIdentity identity;
  EncodedMessage message;
  Clock::time_point started;
  Clock::time_point ended;
};

// Ends exactly once, by `Answer` or `Fail`. Not thread-safe.
class OpenRequest {
 public:
  using Done = absl::AnyInvocable<void(InferReply)>;

  // A request whose message has `bytes_in` bytes. `done` gets the answer. `observer` is told before
  // that, and must outlive the request.
  OpenRequest(Observer* observer, InferContext context, int64_t bytes_in, Done done);

  // What the message says of itself. `model` is nullptr if the server does not have it; then the
  // identity has the name.
  void Identify(const Model* model, InferIdentity identity);

  const InferContext& context() const { return context_; }
  const InferIdentity& identity() const { return identity_; }

  // `regions`: the bytes that went through regions; nullptr: none.
  void Answer(EncodedMessage message, int64_t num_elements, const PhaseTimes& times,
              const RegionTensors* regions);
  // REQUIRES: `status` is an error, and what the request held is free.
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
