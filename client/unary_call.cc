// SPDX-License-Identifier: Apache-2.0
//
// A call on a completion queue, its errors, and the wait for borrowed memory.
#include "client/unary_call.h"

#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "client/call_ends.h"

namespace swiglu::client {
namespace {

// What gRPC itself says when a call's time is over.
constexpr absl::string_view kGrpcDeadlineMessage = "Deadline Exceeded";

// gRPC's whole message when the kernel cannot read the memory to send: the text of EFAULT.
constexpr absl::string_view kUnreadableMemory = "Bad address";

// gRPC's whole message when a connection ends before the status of a call, with the code UNKNOWN.
constexpr absl::string_view kStreamRemoved = "Stream removed";

// gRPC's whole message when a server has ended the connection, most often before it took the
// request.
constexpr absl::string_view kGoAway = "GOAWAY received";

// How gRPC's message begins when it found no connection for a call, which it then has not sent.
constexpr absl::string_view kNoConnection = "failed to connect to all addresses";

// How often a call looks whether one of several servers is connected, and for how long.
constexpr absl::Duration kConnectPollInterval = absl::Milliseconds(2);
constexpr absl::Duration kLongestConnectWait = absl::Milliseconds(500);

// The metadata by which a server says, in milliseconds, when to try again. A value below zero, or
// one that is no number, means never, as in gRPC's own retries.
constexpr char kPushbackKey[] = "grpc-retry-pushback-ms";
constexpr absl::Duration kNeverAgain = absl::Milliseconds(-1);

// The metadata that asks a server for its times, and the one by which it tells them.
constexpr char kWantTimingKey[] = "swiglu-want-timing";
constexpr char kTimingKey[] = "server-timing";

using Trailers = std::multimap<grpc::string_ref, grpc::string_ref>;

absl::optional<absl::string_view> Find(const Trailers& trailers, const char* key) {
  const auto found = trailers.find(key);
  if (found == trailers.end()) return absl::nullopt;
  return absl::string_view(found->second.data(), found->second.size());
}

absl::optional<absl::Duration> PushbackOf(const Trailers& trailers) {
  const absl::optional<absl::string_view> text = Find(trailers, kPushbackKey);
  if (!text) return absl::nullopt;
  int64_t ms = 0;
  if (!absl::SimpleAtoi(*text, &ms) || ms < 0) return kNeverAgain;
  return absl::Milliseconds(ms);
}

// The code of a status. Numbers that no code has are UNKNOWN.
absl::StatusCode CodeOf(const grpc::Status& status) {
  const int code = static_cast<int>(status.error_code());
  return code >= 0 && code <= static_cast<int>(absl::StatusCode::kUnauthenticated)
             ? static_cast<absl::StatusCode>(code)
             : absl::StatusCode::kUnknown;
}

// Reads `queue;dur=0.013, compute;dur=0.205`, in milliseconds.
void ReadTiming(const Trailers& trailers, CallOutcome* outcome) {
  const absl::optional<absl::string_view> text = Find(trailers, kTimingKey);
  if (!text) return;
  for (const absl::string_view entry : absl::StrSplit(*text, ", ")) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(entry, absl::MaxSplits(";dur=", 1));
    double ms = 0;
    if (!absl::SimpleAtod(parts.second, &ms)) continue;
    if (parts.first == "queue") outcome->queue_time = absl::Milliseconds(ms);
    if (parts.first == "compute") outcome->compute_time = absl::Milliseconds(ms);
  }
}

// Whether a status tells that the server is there. gRPC itself makes the other ones too.
bool IsAnswer(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::CANCELLED:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
    case grpc::StatusCode::UNAVAILABLE:
      return false;
    case grpc::StatusCode::UNKNOWN:
      return status.error_message() != kStreamRemoved;
    default:
      return true;
  }
}

}  // namespace

UnaryCall::UnaryCall(ConnectionPool* pool, std::string method, const CallContext& context,
                     EventQueue* queue)
    : pool_(pool), method_(std::move(method)), context_(context), queue_(queue) {}

void UnaryCall::Start(OutgoingMessage message, Done done) {
  done_ = std::move(done);
  message_ = std::move(message);
  message_bytes_ = message_.size_bytes;
  Send(absl::Now() + kLongestConnectWait);
}

void UnaryCall::Send(absl::Time connect_deadline) {
  const bool is_cancelled = IsCancelled(context_);
  if (is_cancelled || absl::Now() >= context_.limit.deadline) {
    outcome_.answer =
        is_cancelled ? CancelledStatus() : LateStatus(context_.limit, pool_->AddressesText());
    message_.slices.clear();
    return FinishWhenRepaid();
  }
  if (pool_->IsConnecting() && absl::Now() < connect_deadline) {
    Timer::Start(queue_, absl::Now() + kConnectPollInterval,
                 [this, connect_deadline] { Send(connect_deadline); });
    return;
  }
  channel_ = pool_->Acquire(message_bytes_, context_.tried);
  outcome_.channel = channel_;
  if (context_.sent_to != nullptr) {
    context_.sent_to->store(channel_->server, std::memory_order_relaxed);
  }
  outcome_.bytes_sent = message_bytes_;
  grpc_context_.emplace();
  AddMetadata();
  grpc::ByteBuffer buffer(message_.slices.data(), message_.slices.size());
  message_.slices.clear();
  queue_->Expect();
  reader_ = channel_->stub->PrepareUnaryCall(&*grpc_context_, method_, buffer, queue_->queue());
  buffer.Clear();
  if (context_.cancellation != nullptr) {
    context_.cancellation->SetStop([this] { grpc_context_->TryCancel(); });
  }
  // gRPC fails such a call at once, and sends nothing.
  has_found_connection_ =
      channel_->channel->GetState(/*try_to_connect=*/false) != GRPC_CHANNEL_TRANSIENT_FAILURE;
  reader_->StartCall();
  reader_->Finish(&response_, &grpc_status_, static_cast<Event*>(this));
}

void UnaryCall::AddMetadata() {
  grpc_context_->set_deadline(absl::ToChronoTime(context_.limit.deadline));
  grpc_context_->AddMetadata(kRequestBytesKey, std::to_string(message_bytes_));
  const CallOptions& options = *context_.options;
  if (!options.request_id.empty()) grpc_context_->AddMetadata("x-request-id", options.request_id);
  if (!options.traceparent.empty()) grpc_context_->AddMetadata("traceparent", options.traceparent);
  if (options.statistics != nullptr) grpc_context_->AddMetadata(kWantTimingKey, "1");
}

void UnaryCall::OnEvent(bool /*ok*/) {
  if (context_.cancellation != nullptr) context_.cancellation->ClearStop();
  TakeOutcome();
  // The call lives as long as its context, and may hold the request until then.
  reader_.reset();
  grpc_context_.reset();
  pool_->Release(channel_, message_bytes_,
                 {IsAnswer(grpc_status_), outcome_.is_lost, outcome_.pushback});
  FinishWhenRepaid();
}

void UnaryCall::Finish() {
  Done done = std::move(done_);
  CallOutcome outcome = std::move(outcome_);
  delete this;
  std::move(done)(std::move(outcome));
}

void UnaryCall::TakeOutcome() {
  if (!grpc_status_.ok()) return ToFailure();
  if (context_.options->statistics != nullptr) {
    ReadTiming(grpc_context_->GetServerTrailingMetadata(), &outcome_);
  }
  if (response_.Valid()) {
    outcome_.answer = std::move(response_);
  } else {
    outcome_.answer =
        absl::InternalError(absl::StrCat("empty answer from ", channel_->address, " to ", method_));
  }
}

void UnaryCall::ToFailure() {
  absl::StatusCode code = CodeOf(grpc_status_);
  const std::string& message = grpc_status_.error_message();
  const std::string& address = channel_->address;
  const Trailers& trailers = grpc_context_->GetServerTrailingMetadata();
  if (IsCancelled(context_) && code == absl::StatusCode::kCancelled) {
    outcome_.answer = CancelledStatus();
    return;
  }
  if (code == absl::StatusCode::kDeadlineExceeded && message == kGrpcDeadlineMessage) {
    outcome_.answer = LateStatus(context_.limit, address);
    return;
  }
  if (code == absl::StatusCode::kUnknown && message == kStreamRemoved) {
    code = absl::StatusCode::kUnavailable;
  }
  if (code == absl::StatusCode::kUnavailable && trailers.empty()) {
    // The kernel fails a write from unmapped memory. The memory may be that of another call.
    if (message == kUnreadableMemory) {
      outcome_.answer = absl::UnavailableError(
          absl::StrCat("the connection to ", address,
                       " broke: an input's memory cannot be read; was its file cut short?"));
      outcome_.pushback = kNeverAgain;
      return;
    }
    outcome_.is_lost = message == kGoAway;
    // A server's own UNAVAILABLE either leaves the connection up or comes with trailers. gRPC's
    // UNAVAILABLE does neither.
    if (channel_->channel->GetState(/*try_to_connect=*/false) != GRPC_CHANNEL_READY) {
      outcome_.answer =
          absl::UnavailableError(absl::StrCat("no connection to ", address, ": ", message));
      outcome_.is_lost = true;
      outcome_.reached_no_server = !has_found_connection_;
      outcome_.was_sent = has_found_connection_ && !absl::StartsWith(message, kNoConnection);
      return;
    }
  }
  outcome_.answer = absl::Status(code, absl::StrCat(message, " (from ", address, ")"));
  outcome_.pushback = PushbackOf(trailers);
}

}  // namespace swiglu::client
