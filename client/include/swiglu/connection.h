// SPDX-License-Identifier: Apache-2.0
//
// What a Client sends its calls through. MakeConnection returns one that reaches servers. A program
// may put an implementation of its own before it, or, in a test, in its place
// (swiglu/mock_connection.h).
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "swiglu/cancellation.h"
#include "swiglu/inference.h"
#include "swiglu/options.h"

namespace swiglu::client {

// The time limit of an operation: its length, and the time at which it ends. It begins when this
// object is constructed. All messages of the operation share it.
struct TimeLimit {
  // Begins now.
  explicit TimeLimit(absl::Duration its_timeout)
      : timeout(its_timeout), deadline(absl::Now() + its_timeout) {}

  absl::Duration timeout;  // its length
  absl::Time deadline;     // its end
};

// Some of the servers of a connection.
class ServerSet {
 public:
  // Servers have the numbers from 0 to 63.
  void Add(int server) { bits_ |= uint64_t{1} << server; }
  bool Has(int server) const { return (bits_ >> server & 1) != 0; }

 private:
  uint64_t bits_ = 0;
};

class CallStreams;  // call_streams.h, internal
class EventQueue;   // event_queue.h, internal

// What a call is made under, beside the inference.
struct CallContext {
  TimeLimit limit;
  // Lives until the call has ended.
  const CallOptions* options;
  // How the call is ended early. nullptr: it is not. Lives until the call has ended.
  Cancellation* cancellation = nullptr;
  // What a thread that blocks in Infer calls about ten times a second while it waits. nullptr:
  // nothing. It may cancel the call. Lives until the call has ended.
  const std::function<void()>* while_waiting = nullptr;

  // The connections behind MakeConnection use the rest among themselves.
  // Servers that have failed the call.
  ServerSet tried = {};
  // Whether a refusal with a pushback is the caller's to handle, so that it is not tried again.
  bool return_pushback = false;
  // Where the events of the call happen. nullptr: on a thread of the connection.
  EventQueue* queue = nullptr;
  // Streams whose events happen on `queue`. nullptr: the call uses none.
  CallStreams* streams = nullptr;
  // Whether the inference is small calls that are joined.
  bool is_joined = false;
  // How many retries the parts of one call have paid for from the budget. Once one of them has paid
  // for its second attempt, second attempts of the others cost nothing, and so on. nullptr: the
  // inference is no part. Lives until the call has ended.
  std::atomic<int>* paid_retries = nullptr;
  // Where the number of the server is noted that a message goes to. nullptr: nowhere. Lives until
  // the call has ended.
  std::atomic<int>* sent_to = nullptr;
};

// How a call ended.
struct CallResult {
  absl::Status status;
  // Of the weights that computed the outputs. Empty if the model has none.
  std::string weights_sha256 = "";
  CallStatistics statistics = {};
  int server = -1;  // the number of the server that answered; -1 if nothing was sent
  // The server's advice how long to wait before the next attempt. Negative: make none.
  absl::optional<absl::Duration> pushback = absl::nullopt;
  // Whether there was no connection to the server, or it broke.
  bool is_lost = false;
  // Whether there was none when the attempt began, so that no server has got the message.
  bool reached_no_server = false;
  // What CallOptions::on_chunk threw. The status is then ABORTED.
  std::exception_ptr exception = nullptr;
};

// Runs inferences. Implementations are thread-safe. One that stands before another connection
// passes all five methods on.
class Connection {
 public:
  // Takes the result of an inference.
  using Done = absl::AnyInvocable<void(CallResult) &&>;

  virtual ~Connection() = default;

  // Starts an inference, and calls `done` once, when its outputs are filled or it has failed, and
  // nothing uses its memory any more. `done` may run before StartInfer returns, or later on another
  // thread. It must not block. `inference` must live until `done` is called; `context` is copied.
  // REQUIRES: `inference` is well-formed, as Client makes it.
  virtual void StartInfer(const Inference& inference, const CallContext& context, Done done) = 0;

  // The same, but blocks, and returns the result. By default waits for StartInfer, and never calls
  // `context.while_waiting`.
  virtual CallResult Infer(const Inference& inference, const CallContext& context);

  // Makes one call of `rpc`, a method of the protocol such as ServerLive, with a serialized
  // message. Returns the serialized answer. Blocks. By default UNIMPLEMENTED.
  virtual absl::StatusOr<std::string> Control(absl::string_view rpc, const std::string& request,
                                              const TimeLimit& limit);

  // How many servers the connection may send to.
  virtual int num_servers() const { return 1; }

  // Whether all calls reach one and the same server, so that they may use regions of shared memory.
  virtual bool has_one_server() const { return num_servers() == 1; }
};

// A connection to the server at `address`, or to several that are alike, as Client::Create has it.
// It sends nothing yet. Its destructor waits until all calls have ended; the last owner must not be
// a callback.
absl::StatusOr<std::shared_ptr<Connection>> MakeConnection(absl::string_view address,
                                                           const Options& options = {});

}  // namespace swiglu::client
