// SPDX-License-Identifier: Apache-2.0
//
// Inferences, from a received message to an encoded answer: decode → check → admit → submit →
// encode. Knows messages and batching, but no call: unary calls and streams both use it. How one
// inference runs once it is admitted is in inference.h.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/support/byte_buffer.h"
#include "server/batching/admission.h"
#include "server/batching/batcher.h"
#include "server/batching/message_size.h"
#include "server/core/observer.h"
#include "server/inference/inference.h"

namespace swiglu::server {

struct InferServiceOptions {
  // Largest request message and largest response message, in bytes.
  int64_t max_request_bytes = (int64_t{1} << 31) - 1;
};

// Thread-safe. All parts must outlive it and the requests that it has started.
class InferService {
 public:
  using Done = Inference::Done;

  InferService(InferServiceOptions options, Admission* admission, Executor* executor,
               Batcher* batcher, Observer* observer);

  // Room for a message that is about to be read. With an announced size it is that much. Without
  // one it is a little, which grows with what comes. On a unix socket it is the recent size of such
  // messages, or the little amount if that does not fit. UNAVAILABLE if there is no room now,
  // RESOURCE_EXHAUSTED if there never can be; either counts as a rejection.
  absl::StatusOr<Charge> ReserveMessage(std::optional<int64_t> announced_bytes,
                                        const MessageSource& source);
  // The largest message that can be taken, with and without an announced size.
  int64_t max_announced_bytes() const {
    return std::min(options_.max_request_bytes, admission_->half_budget_bytes());
  }
  int64_t max_unannounced_bytes() const {
    return std::min(options_.max_request_bytes, admission_->max_unannounced_bytes());
  }
  int64_t memory_budget_bytes() const { return admission_->options().memory_budget_bytes; }

  // Counts the refusal of a message that cannot go on, and returns its error. REQUIRES: the reason
  // is not kDeadline.
  absl::Status Refuse(const Overrun& overrun, const MessageSource& source);

  // Starts one inference on `message` (one ModelInferRequest), which is consumed. `done` is called
  // exactly once, perhaps before this returns. The observer has the request's record by then.
  void Start(grpc::ByteBuffer message, InferContext context, Done done);

  // The caller has gone: ends what still waits of that which was started with `cancelled`.
  // REQUIRES: `cancelled` is set.
  void Cancel(const std::atomic<bool>& cancelled) { batcher_->Cancel(cancelled); }

  // The charge of an answer without tensors, for as long as it waits to be written.
  Charge ChargeAnswer(int64_t bytes) { return admission_->ChargeAnswer(bytes); }
  // Whether one more such answer has room.
  bool HasRoomForAnswers() const { return admission_->HasRoomForAnswers(); }

  // Counts the refusal of a request, or of a message from `source`, and returns its error.
  absl::Status Reject(Rejection reason, int64_t bytes = 0, const MessageSource& source = {});

  // Reports a request that ended without ever reaching `Start`.
  void ReportUnstarted(absl::Status status, Clock::time_point started);

  const InferServiceOptions& options() const { return options_; }

 private:
  // Everything up to admission: on OK `inference` can run.
  absl::Status Prepare(grpc::ByteBuffer message, Inference& inference);
  // Makes the charge of a message that is there fit its size.
  absl::Status ChargeMessage(Inference& inference);
  absl::Status Parse(grpc::ByteBuffer message, Inference& inference);
  absl::Status Admit(Inference& inference);
  absl::Status CheckResponseSize(const Inference& inference);

  const InferServiceOptions options_;
  Admission* const admission_;
  Executor* const executor_;
  Batcher* const batcher_;
  Observer* const observer_;
  MessageSizeEstimate unannounced_;
};

}  // namespace swiglu::server
