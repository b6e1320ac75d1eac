// SPDX-License-Identifier: Apache-2.0
//
// Encodes, calls, decodes.
#include "client/model_connection.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/infer_codec.h"
#include "client/unary_call.h"

namespace swiglu::client {
namespace {

CallResult ToResult(CallOutcome outcome, const Inference& inference) {
  CallResult result;
  result.pushback = outcome.pushback;
  result.is_lost = outcome.is_lost;
  result.reached_no_server = outcome.reached_no_server;
  if (outcome.channel != nullptr) {
    result.server = outcome.channel->server;
    result.statistics.num_messages = 1;
    result.statistics.bytes_sent = outcome.bytes_sent;
    result.statistics.server = outcome.channel->address;
  }
  result.statistics.queue_time = outcome.queue_time;
  result.statistics.compute_time = outcome.compute_time;
  if (!outcome.answer.ok()) {
    result.status = outcome.answer.status();
    return result;
  }
  result.statistics.bytes_received = static_cast<int64_t>(outcome.answer->Length());
  absl::StatusOr<std::string> weights = DecodeInferResponse(*std::move(outcome.answer), inference);
  if (weights.ok()) {
    result.weights_sha256 = *std::move(weights);
  } else {
    result.status = absl::Status(
        weights.status().code(),
        absl::StrCat(weights.status().message(), " (from ", outcome.channel->address, ")"));
  }
  return result;
}

}  // namespace

void ModelConnection::StartInfer(const Inference& inference, const CallContext& context,
                                 Done done) {
  EventQueue* const queue = context.queue != nullptr ? context.queue : threads_->Next();
  auto* const call = new UnaryCall(pool_, kModelInfer, context, queue);
  OutgoingMessage message = EncodeInferRequest(inference, *context.options, call->loan());
  call->Start(std::move(message),
              [&inference, done = std::move(done)](CallOutcome outcome) mutable {
                std::move(done)(ToResult(std::move(outcome), inference));
              });
}

}  // namespace swiglu::client
