// SPDX-License-Identifier: Apache-2.0
//
// Calls that go together in one message, and a copy of their tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/event_queue.h"
#include "swiglu/connection.h"

namespace swiglu::client {

// A call that waits for others, or is in a message.
struct JoinedCall {
  const Inference* inference;  // nullptr if the call has ended early
  size_t tensor_bytes;         // of each of its tensors
  CallContext context;
  Connection::Done done;
};

// A call that ends early, and its error.
struct EndedCall {
  Connection::Done done;
  absl::Status status;
};

// Moves what is needed to end `call` to `ended`, if its deadline has passed or it is cancelled.
void EndIfOver(JoinedCall& call, absl::Time now, absl::string_view servers,
               std::vector<EndedCall>* ended);

// Removes the calls that have ended early.
void EraseEnded(std::vector<JoinedCall>* calls);

// Ends calls. REQUIRES: no lock is held.
void EndAll(std::vector<EndedCall> ended);

// A message uses none of its calls' memory while it is away, so a call that ends early leaves the
// others alone. It is used again and again, to keep its memory. Not thread-safe.
class JoinedMessage {
 public:
  // Takes calls of one operation and dtype. REQUIRES: there is one at least, and none has ended.
  void Fill(std::vector<JoinedCall> calls);

  // Copies the inputs of the calls behind each other. REQUIRES: no call has ended.
  void CopyInputs();

  // From now on, calls may end early.
  void SetSent() { is_sent_ = true; }

  // The inference of all calls, and its context. It has the latest deadline of the calls.
  const Inference& inference() const { return inference_; }
  CallContext context(EventQueue* queue) const;

  // Moves what is needed to end the calls whose deadline has passed to `ended`. Returns whether a
  // call is left. Does nothing before SetSent.
  bool EndLate(absl::Time now, absl::string_view servers, std::vector<EndedCall>* ended);

  // Fills the outputs of the calls that have not ended. REQUIRES: the message has succeeded.
  void CopyOutputs();

  // Takes the calls that have not ended.
  std::vector<JoinedCall> TakeCalls();

  // The calls that it was filled with.
  size_t num_calls() const { return num_calls_; }

 private:
  std::vector<JoinedCall> calls_;
  size_t num_calls_ = 0;
  int64_t num_elements_ = 0;
  bool is_sent_ = false;
  TimeLimit limit_{absl::ZeroDuration()};
  CallOptions options_;
  CallStatistics statistics_;  // only asks for the server's times
  std::vector<std::byte> bytes_;
  // Views of the model's name and of the tensors' names, which may be the calls' own.
  std::string model_;
  std::vector<std::string> names_;
  Inference inference_;
};

}  // namespace swiglu::client
