// SPDX-License-Identifier: Apache-2.0
//
// Joins small calls into one message: a decorator of a connection. It waits for no timer. Calls
// that come while several are away gather, and leave together when enough of these have come back.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "client/event_queue.h"
#include "swiglu/connection.h"

namespace swiglu::client {

struct CoalescingOptions {
  // The largest call that is joined, in bytes of its inputs.
  int64_t max_call_bytes = 0;
  // As long as at most so many calls of one operation and dtype are under way at once, none
  // gathers: so few are quicker alone.
  int max_alone = 0;
  // The messages of one operation and dtype that are away before calls gather, and before calls of
  // `full_bytes` in all gather. A message that has been away for longer than `overdue` does not
  // count.
  int max_away = 1;
  int max_full_away = 1;
  int64_t full_bytes = int64_t{128} << 10;
  absl::Duration overdue = absl::Milliseconds(100);
  // The largest message that joins calls: bytes of its inputs, and calls.
  int64_t max_message_bytes = int64_t{256} << 10;
  int max_message_calls = 1024;
  // The servers, for errors.
  std::string servers = "";
};

// What is joined: calls of one element-wise operation and dtype, of at most `max_call_bytes` each,
// without regions, request id, traceparent or priority. While few are under way, each leaves alone
// and unchanged.
// The results of calls that are joined have the same bits, because the operations are element-wise.
//
// A message has the latest deadline of its calls. A call whose own deadline passes, or that is
// cancelled before its message has left, is answered without the others, at most 10 ms late. If the
// server answers INVALID_ARGUMENT, or RESOURCE_EXHAUSTED without a pushback, to a message, each of
// its calls is sent alone. Any other error is that of each call.
//
// Thread-safe. All pointers must outlive it.
class CoalescingConnection final : public Connection {
 public:
  CoalescingConnection(Connection* inner, const CoalescingOptions& options, EventThreads* threads);
  // REQUIRES: all calls have ended, and `threads` have stopped.
  ~CoalescingConnection() override;

  void StartInfer(const Inference& inference, const CallContext& context, Done done) override;

  int num_servers() const override { return inner_->num_servers(); }

 private:
  class Lane;

  Lane* LaneOf(const Inference& inference, const CallContext& context) const;

  Connection* const inner_;
  const CoalescingOptions options_;
  EventThreads* const threads_;
  // By operation and dtype.
  std::array<std::unique_ptr<Lane>, 6> lanes_;
};

}  // namespace swiglu::client
