// SPDX-License-Identifier: Apache-2.0
//
// Encodes, calls, decodes.
#include "client/model_connection.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/call_ends.h"
#include "client/call_streams.h"
#include "client/infer_codec.h"
#include "client/unary_call.h"

namespace swiglu::client {
namespace {

// The most bytes of tensors in a message that goes over a stream. Larger ones gain little by it.
constexpr int64_t kLargestStreamed = int64_t{64} << 10;

// Whether a call may go over a stream, which carries neither metadata nor the server's times. What
// fails there is repeated at once, so no tensor is in a region: a server might still write there
// for the first message when the second answer is there.
bool MayGoOverStream(const Inference& inference, const CallContext& context) {
  if (context.streams == nullptr || IsCancelled(context)) return false;
  const CallOptions& options = *context.options;
  const bool is_plain =
      options.request_id.empty() && options.traceparent.empty() && options.statistics == nullptr;
  return is_plain && CarriedBytes(inference) <= kLargestStreamed && !inference.uses_regions();
}

// A result of a message that went to `channel`, or to no channel.
CallResult ResultFrom(const PooledChannel* channel, int64_t bytes_sent) {
  CallResult result;
  if (channel == nullptr) return result;
  result.server = channel->server;
  result.statistics.num_messages = 1;
  result.statistics.bytes_sent = bytes_sent;
  result.statistics.server = channel->address;
  return result;
}

// Takes what was decoded from an answer.
void SetDecoded(absl::StatusOr<std::string> weights, const std::string& address,
                CallResult* result) {
  if (weights.ok()) {
    result->weights_sha256 = *std::move(weights);
  } else {
    result->status = absl::Status(
        weights.status().code(), absl::StrCat(weights.status().message(), " (from ", address, ")"));
  }
}

CallResult ToResult(CallOutcome outcome, const Inference& inference) {
  CallResult result = ResultFrom(outcome.channel, outcome.bytes_sent);
  result.pushback = outcome.pushback;
  result.is_lost = outcome.is_lost;
  result.reached_no_server = outcome.reached_no_server;
  if (!outcome.was_sent) result.statistics.num_messages = result.statistics.bytes_sent = 0;
  result.statistics.queue_time = outcome.queue_time;
  result.statistics.compute_time = outcome.compute_time;
  if (!outcome.answer.ok()) {
    result.status = outcome.answer.status();
    return result;
  }
  result.statistics.bytes_received = static_cast<int64_t>(outcome.answer->Length());
  SetDecoded(DecodeInferResponse(*std::move(outcome.answer), inference), outcome.channel->address,
             &result);
  return result;
}

// nullopt if the call must be repeated.
absl::optional<CallResult> ToResult(CallStreams::Outcome outcome, const Inference& inference,
                                    const CallContext& context) {
  CallResult result = ResultFrom(outcome.channel, outcome.bytes_sent);
  const std::string& address = outcome.channel->address;
  if (!outcome.answer) {
    const bool is_cancelled = IsCancelled(context);
    if (!is_cancelled && absl::Now() < context.limit.deadline) return absl::nullopt;
    result.status = is_cancelled ? CancelledStatus() : LateStatus(context.limit, address);
    return result;
  }
  result.statistics.bytes_received = static_cast<int64_t>(outcome.answer->Length());
  absl::StatusOr<std::string> weights =
      DecodeStreamResponse(*std::move(outcome.answer), inference, context.streams->id());
  weights.ok() ? context.streams->NoteSuccess() : context.streams->NoteFailure();
  if (absl::IsUnavailable(weights.status())) return absl::nullopt;
  SetDecoded(std::move(weights), address, &result);
  return result;
}

}  // namespace

void ModelConnection::StartInfer(const Inference& inference, const CallContext& context,
                                 Done done) {
  if (MayGoOverStream(inference, context)) {
    const absl::Time now = absl::Now();
    if (now < context.limit.deadline &&
        context.streams->Take(CarriedBytes(inference), context.tried, now)) {
      return SendOverStream(inference, context, context.limit.deadline - now, std::move(done));
    }
  }
  SendUnary(inference, context, std::move(done));
}

void ModelConnection::SendUnary(const Inference& inference, const CallContext& context, Done done) {
  EventQueue* const queue = context.queue != nullptr ? context.queue : threads_->Next();
  auto* const call = new UnaryCall(pool_, kModelInfer, context, queue);
  OutgoingMessage message = EncodeInferRequest(
      inference, {context.options->request_id, context.options->priority}, call->loan());
  call->Start(std::move(message),
              [&inference, done = std::move(done)](CallOutcome outcome) mutable {
                std::move(done)(ToResult(std::move(outcome), inference));
              });
}

void ModelConnection::SendOverStream(const Inference& inference, const CallContext& context,
                                     absl::Duration timeout, Done done) {
  CallStreams* const streams = context.streams;
  OutgoingMessage message =
      EncodeInferRequest(inference, {streams->id(), context.options->priority}, streams->loan());
  streams->Send(std::move(message), timeout, context.cancellation,
                [this, &inference, own = context,
                 done = std::move(done)](CallStreams::Outcome outcome) mutable {
                  const int64_t bytes_sent = outcome.bytes_sent;
                  if (!outcome.answer) own.tried.Add(outcome.channel->server);
                  absl::optional<CallResult> result = ToResult(std::move(outcome), inference, own);
                  if (result) return std::move(done)(*std::move(result));
                  SendUnary(inference, own,
                            [bytes_sent, done = std::move(done)](CallResult&& repeated) mutable {
                              ++repeated.statistics.num_messages;
                              repeated.statistics.bytes_sent += bytes_sent;
                              std::move(done)(std::move(repeated));
                            });
                });
}

}  // namespace swiglu::client
