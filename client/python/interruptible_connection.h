// SPDX-License-Identifier: Apache-2.0
//
// Lets Ctrl-C end a call on Python's main thread, and lets calls that take a callback be cancelled.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/python/completion.h"
#include "swiglu/cancellation.h"
#include "swiglu/connection.h"

namespace swiglu::python {

// Remembers which thread is the one where Python handles signals, by threading.Thread.ident.
void NoteMainThread(unsigned long ident);

// Waits with the GIL released, for `timeout` at most. Needs the GIL. Returns whether the calls have
// ended. Throws what a signal handler of Python raises meanwhile.
bool WaitInterruptibly(Completion* completion, absl::Duration timeout);

// While it lives, it is for the call that this thread makes or starts.
class CallScope {
 public:
  // Unless it is nullptr, the call has this cancellation, and `notes` are filled before it ends.
  CallScope(client::Cancellation* cancellation, CallNotes* notes);
  ~CallScope();
  CallScope(const CallScope&) = delete;
  CallScope& operator=(const CallScope&) = delete;
};

// While it lives, what blocks on this thread does not look for signals, and Python handles them
// later. For destructors, which cannot throw.
class SignalsLater {
 public:
  SignalsLater();
  ~SignalsLater();
  SignalsLater(const SignalsLater&) = delete;
  SignalsLater& operator=(const SignalsLater&) = delete;
};

// Stands before the connection to servers. On Python's main thread, what blocks looks for signals
// ten times a second. If a handler raises an exception, the call is cancelled, and the exception is
// left set. So who calls a client on that thread asks PyErr_Occurred afterwards. On any other
// thread nothing is different. The GIL is not held when it is called.
class InterruptibleConnection : public client::Connection {
 public:
  explicit InterruptibleConnection(std::shared_ptr<client::Connection> connection)
      : connection_(std::move(connection)) {}

  void StartInfer(const client::Inference& inference, const client::CallContext& context,
                  Done done) override;
  client::CallResult Infer(const client::Inference& inference,
                           const client::CallContext& context) override;
  // A call that a signal interrupts goes on by itself until its time is over.
  absl::StatusOr<std::string> Control(absl::string_view rpc, const std::string& request,
                                      const client::TimeLimit& limit) override;
  int num_servers() const override { return connection_->num_servers(); }
  bool has_one_server() const override { return connection_->has_one_server(); }

 private:
  client::CallResult InferInterruptibly(const client::Inference& inference,
                                        const client::CallContext& context);

  const std::shared_ptr<client::Connection> connection_;
};

}  // namespace swiglu::python
