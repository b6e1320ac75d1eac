// SPDX-License-Identifier: Apache-2.0
//
// Serves requests, from a received message to an encoded answer: decode → check → admit → run →
// encode. This file depends on messages and batching, but not on calls: unary calls and streams
// both use it. running_request.h runs admitted requests.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/batching/admission.h"
#include "server/batching/batcher.h"
#include "server/batching/message_size.h"
#include "server/core/model_registry.h"
#include "server/core/observer.h"
#include "server/inference/open_request.h"
#include "server/inference/stages.h"
#include "server/regions/region_registry.h"

namespace swiglu::server {

struct InferServiceOptions {
  // Largest request message and largest response message, in bytes.
  int64_t max_request_bytes = (int64_t{1} << 31) - 1;
};

// Thread-safe. All objects that are passed to it must outlive it and the requests that it has
// started.
class InferService {
 public:
  using Done = OpenRequest::Done;

  // `models`: the models that requests may name. `regions`: the regions in which tensors may lie;
  // nullptr: all tensors lie in messages.
  InferService(InferServiceOptions options, const ModelRegistry* models, Admission* admission,
               Executor* executor, Batcher* batcher, Observer* observer,
               const RegionRegistry* regions = nullptr);

  // Reserves room for a message that is about to be read. An announced message gets its announced
  // size. An unannounced message on a measured connection gets a small amount, which grows as the
  // message arrives. Other connections, such as those of a unix socket, are not measured. There, an
  // unannounced message gets the size that such messages had recently. If that size does not fit,
  // the message gets the small amount. UNAVAILABLE if there is no room now, RESOURCE_EXHAUSTED if
  // there never can be room.
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

  // The error for a message that the server stops receiving. REQUIRES: the reason of `overrun` is
  // not kDeadline.
  absl::Status RefusalOf(const Overrun& overrun, const MessageSource& source) const;

  // Starts the request in `message`, which is one ModelInferRequest. When the request ends, first
  // the observer gets its record. Then `done` is called, exactly once and perhaps before `Start`
  // returns.
  void Start(ReceivedMessage message, InferContext context, Done done);

  // Reports to the observer a request that failed before `Start`. `origin` may be nullptr.
  void ReportUnstarted(absl::Status status, const RequestOrigin* origin, Clock::time_point started);

  // Call this when a caller has gone. Ends every queued request that was started with the flag
  // `cancelled`. REQUIRES: the flag is set.
  void Cancel(const std::atomic<bool>& cancelled) { batcher_->Cancel(cancelled); }

  // Charges an answer without tensors. Hold the charge until the answer is written.
  Charge ChargeAnswer(int64_t bytes) { return admission_->ChargeAnswer(bytes); }
  // Whether there is room for one more answer without tensors.
  bool HasRoomForAnswers() const { return admission_->HasRoomForAnswers(); }

  const InferServiceOptions& options() const { return options_; }

 private:
  // Does everything up to admission. Sets the identity of `request`, even if it is refused.
  absl::StatusOr<AdmittedRequest> Prepare(ReceivedMessage message, OpenRequest& request);
  // Changes the charge of a complete message to the size of the message.
  absl::Status ChargeMessage(ReceivedMessage& message);
  absl::StatusOr<AdmittedRequest> Admit(DecodedRequest decoded, const OpenRequest& request);
  absl::Status CheckResponseSize(const InferPlan& plan, const std::string& id) const;
  // The error for a refused request or message of `bytes` bytes.
  absl::Status RefusalOf(Rejection reason, int64_t bytes, const MessageSource& source = {}) const;

  const InferServiceOptions options_;
  const ModelRegistry* const models_;
  Admission* const admission_;
  Executor* const executor_;
  Batcher* const batcher_;
  Observer* const observer_;
  const RegionRegistry* const regions_;  // nullptr if no kind of region is enabled
  MessageSizeEstimate unannounced_;
};

}  // namespace swiglu::server
