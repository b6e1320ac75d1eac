// SPDX-License-Identifier: Apache-2.0
//
// Streams that stay open for small calls that block. A message on a stream costs about half of what
// a unary RPC of gRPC costs, because no headers, no trailers and no call object go with it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "client/connection_pool.h"
#include "client/event_queue.h"
#include "client/outgoing_message.h"
#include "grpcpp/support/byte_buffer.h"
#include "swiglu/cancellation.h"

namespace swiglu::client {

// The streams of one event queue: at most one for each connection, and one in use at a time. A
// server learns nothing about a message on a stream but the message itself: no deadline, no other
// metadata. An error there has no code. So a call that fails on a stream is repeated as a unary
// RPC, whose result counts.
//
// The first calls are refused, because to open a stream costs more than a unary RPC. After a
// failure twice as many calls are refused as before. So few calls are sent twice to a server that
// does not take streams, or refuses requests.
//
// For one thread at a time: the one that takes the events of the queue.
class CallStreams final : private Reminder {
 public:
  // How many calls are refused before the first stream opens, and at most.
  static constexpr int kFirstRefusals = 8;
  static constexpr int kMostRefusals = 1 << 16;
  // The streams of all queues on one connection.
  static constexpr int kMostOnConnection = 8;
  // How old a stream gets before another one takes its place, so that none stays on a connection
  // that the server has begun to end.
  static constexpr absl::Duration kMostAge = absl::Seconds(10);
  // How long the first message of a stream may take. A proxy may hold it back until the stream
  // ends.
  static constexpr absl::Duration kFirstAnswerTimeout = absl::Seconds(1);
  // When a stream counts as idle after its last use.
  static constexpr absl::Duration kIdleTime = absl::Seconds(1);

  // Both must outlive it.
  CallStreams(ConnectionPool* pool, EventQueue* queue);
  // REQUIRES: no call is under way.
  ~CallStreams();

  // What came of a call.
  struct Outcome {
    // A ModelStreamInferResponse. None if the stream ended first, at the deadline or by a
    // cancellation, or did not answer its first message soon.
    absl::optional<grpc::ByteBuffer> answer;
    const PooledChannel* channel = nullptr;
    int64_t bytes_sent = 0;
  };
  using Done = absl::AnyInvocable<void(Outcome) &&>;

  // Takes a connection for a call that sends so many bytes, and opens a stream there if there is
  // none. False if the call must go as a unary RPC. If true, Send follows.
  bool Take(int64_t bytes, const ServerSet& tried, absl::Time now);

  // The id for the message. No other message of a stream has it.
  const std::string& id() const { return id_; }
  // Counts the memory that the message borrows.
  Loan* loan() { return &loan_; }

  // Sends `message`, a ModelInferRequest. Calls `done` on the thread of the queue when there is an
  // outcome, and gRPC has released every borrowed slice of the message. After `timeout`, and when
  // the call is cancelled, the stream is ended, so the server drops the request. `cancellation` may
  // be nullptr.
  void Send(OutgoingMessage message, absl::Duration timeout, Cancellation* cancellation, Done done);

  // What the caller of Send made of the answer, in `done`.
  void NoteSuccess() { num_refusals_after_failure_ = 2 * kFirstRefusals; }
  // Closes the streams, and refuses calls for a while.
  void NoteFailure();

  // Whether a stream is open that has not been used for kIdleTime.
  bool IsIdle(absl::Time now) const { return !streams_.empty() && now - used_ >= kIdleTime; }
  // Takes the streams out. They close when the result is destroyed, on any thread. REQUIRES: no
  // call is under way.
  std::vector<std::shared_ptr<void>> TakeStreams();

 private:
  class Stream;

  // nullptr if the connection has enough of them.
  Stream* FindOrOpen(PooledChannel* channel, absl::Time now);
  void OnTime() override;
  // From now on the stream is not cancelled.
  void StopCancellation();
  void OnEnd(absl::optional<grpc::ByteBuffer> answer);
  void Finish();

  ConnectionPool* const pool_;
  EventQueue* const queue_;
  std::vector<std::unique_ptr<Stream>> streams_;
  absl::Time used_ = absl::InfinitePast();
  int num_refusals_ = kFirstRefusals;  // to come
  int num_refusals_after_failure_ = 2 * kFirstRefusals;
  uint64_t num_calls_ = 0;

  // Of the call under way.
  Stream* stream_ = nullptr;  // nullptr: there is none
  PooledChannel* channel_ = nullptr;
  int64_t bytes_ = 0;  // as in Take
  std::string id_;
  Cancellation* cancellation_ = nullptr;  // nullptr: it is never cancelled
  Loan loan_;
  Done done_;
  Outcome outcome_;
};

}  // namespace swiglu::client
