// SPDX-License-Identifier: Apache-2.0
//
// One inference, from a received message to an encoded answer: decode → check → admit → one copy
// into a slab → submit → encode. Knows messages and batching, but no call: unary calls and streams
// both use it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "grpcpp/support/byte_buffer.h"
#include "server/batching/admission.h"
#include "server/batching/batcher.h"
#include "server/batching/observer.h"
#include "server/batching/request.h"
#include "server/rpc/infer_encoder.h"

namespace swiglu::server {

// What the call knows about a request beside its message.
struct InferContext {
  // First sign of the request.
  Clock::time_point started;
  // The caller's deadline.
  Clock::time_point deadline = Clock::time_point::max();
  // Set when the caller has gone. Never null.
  std::shared_ptr<const std::atomic<bool>> cancelled;
};

// The answer. Its `message` is encoded only when `status` is OK.
struct InferReply {
  absl::Status status;
  const Model* model = nullptr;  // nullptr if the request named none
  InferIdentity identity;
  EncodedMessage message;
  Clock::time_point started;
};

struct InferServiceOptions {
  // Largest request message and largest response message, in bytes.
  int64_t max_request_bytes = (int64_t{1} << 31) - 1;
};

// Thread-safe. All parts must outlive it and the requests that it has started.
class InferService {
 public:
  using Done = absl::AnyInvocable<void(InferReply)>;

  InferService(InferServiceOptions options, Admission* admission, SlabPool* slab_pool,
               Batcher* batcher, Observer* observer);

  // Starts one inference on `message` (one ModelInferRequest), which is consumed. `done` is called
  // exactly once, perhaps before this returns. The observer has the request's record by then.
  void Start(grpc::ByteBuffer message, InferContext context, Done done);

  // Whether a request that announces `size_bytes` could be served: OK or RESOURCE_EXHAUSTED.
  absl::Status CheckAnnouncedSize(int64_t size_bytes) const;

  // Reports a request that ended without ever reaching `Start`.
  void ReportUnstarted(absl::Status status, Clock::time_point started);

  const Admission& admission() const { return *admission_; }

 private:
  struct Inference;

  absl::Status CheckSize(int64_t size_bytes) const;
  // Everything up to the slab: on OK `inference` is ready to be submitted.
  absl::Status Prepare(grpc::ByteBuffer message, Inference& inference);
  absl::Status AdmitAndCopy(Inference& inference);
  absl::Status CheckResponseSize(const Inference& inference) const;
  void Submit(std::unique_ptr<Inference> inference);
  // Sends the record and the reply.
  void Finish(Inference& inference, absl::Status status);
  absl::Status ToStatus(Rejection reason, int64_t bytes) const;

  const InferServiceOptions options_;
  Admission* const admission_;
  SlabPool* const slab_pool_;
  Batcher* const batcher_;
  Observer* const observer_;
};

}  // namespace swiglu::server
