// SPDX-License-Identifier: Apache-2.0
//
// One message to one server, and its answer: the only kind of call that the library makes.
#pragma once

#include <cstdint>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/connection_pool.h"
#include "client/event_queue.h"
#include "client/outgoing_message.h"
#include "grpcpp/client_context.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/support/byte_buffer.h"
#include "swiglu/connection.h"

namespace swiglu::client {

// The metadata that announces the size of a request's message to the server before the message
// arrives.
inline constexpr char kRequestBytesKey[] = "swiglu-request-bytes";

// What came of a call.
struct CallOutcome {
  absl::StatusOr<grpc::ByteBuffer> answer;
  // The advice of a server that failed the call, how long to wait before the next try. Negative if
  // the call must not be tried again.
  absl::optional<absl::Duration> pushback = absl::nullopt;
  bool is_lost = false;                    // whether there was no connection, or it broke
  bool reached_no_server = false;          // whether there was none when the call was sent
  const PooledChannel* channel = nullptr;  // that was used; nullptr if nothing was sent
  bool was_sent = true;                    // false: gRPC had no connection to send it over
  int64_t bytes_sent = 0;
  // The times in the server, if the call asked for them.
  absl::optional<absl::Duration> queue_time = absl::nullopt;
  absl::optional<absl::Duration> compute_time = absl::nullopt;
};

// Deletes itself when it has ended.
class UnaryCall final : private Event {
 public:
  using Done = absl::AnyInvocable<void(CallOutcome) &&>;

  // Of `method`, the full path of an RPC method. The events happen on `queue`. `pool` must outlive
  // the call. Of `context` the call uses the limit, the options, the cancellation and the servers
  // that were tried.
  UnaryCall(ConnectionPool* pool, std::string method, const CallContext& context,
            EventQueue* queue);

  // Counts the memory that the message borrows.
  Loan* loan() { return &loan_; }

  // Calls `done` when there is an answer or an error, and gRPC has released every borrowed slice of
  // the message: on the thread of the queue, or before Start returns if nothing is sent. The answer
  // may be the server's own error. UNAVAILABLE, with the address in the message, if there is no
  // connection. DEADLINE_EXCEEDED when the limit has passed, CANCELLED if the call was cancelled;
  // if either was so before Start, nothing is sent.
  void Start(OutgoingMessage message, Done done);

 private:
  ~UnaryCall() override = default;

  void OnEvent(bool ok) override;
  // Waits, until that time at most, for the first of several servers to be connected, and sends.
  void Send(absl::Time connect_deadline);
  void AddMetadata();
  void TakeOutcome();
  // Ends the call when gRPC has released all borrowed memory.
  void FinishWhenRepaid() {
    WhenRepaid(&loan_, queue_, [this] { Finish(); });
  }
  void Finish();
  void ToFailure();

  ConnectionPool* const pool_;
  const std::string method_;
  const CallContext context_;
  EventQueue* const queue_;
  Loan loan_;
  Done done_;
  OutgoingMessage message_;  // without slices when it was sent
  int64_t message_bytes_ = 0;
  PooledChannel* channel_ = nullptr;
  bool has_found_connection_ = false;  // or one that may be there soon
  absl::optional<grpc::ClientContext> grpc_context_;
  std::unique_ptr<grpc::ClientAsyncResponseReader<grpc::ByteBuffer>> reader_;
  grpc::Status grpc_status_;
  grpc::ByteBuffer response_;
  CallOutcome outcome_;
};

}  // namespace swiglu::client
