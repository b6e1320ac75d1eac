// SPDX-License-Identifier: Apache-2.0
//
// Python runs its signal handlers on the main thread, when asked there. So that thread asks ten
// times a second while it waits.
#include "client/python/interruptible_connection.h"

#include <pybind11/pybind11.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/clock.h"

namespace swiglu::python {
namespace {

namespace py = pybind11;

constexpr absl::Duration kSlice = absl::Milliseconds(100);

std::atomic<unsigned long> main_thread{0};
thread_local client::Cancellation* current_cancellation = nullptr;
thread_local CallNotes* current_notes = nullptr;
thread_local int num_signals_later = 0;

bool LooksForSignals() {
  return num_signals_later == 0 &&
         main_thread.load(std::memory_order_relaxed) == PyThread_get_thread_ident();
}

// Whether a signal handler raised an exception now, which is then set. Handlers wait as long as
// one is set already.
bool HasRaised() {
  const py::gil_scoped_acquire gil;
  return PyErr_Occurred() == nullptr && PyErr_CheckSignals() != 0;
}

// Waits on the main thread. Returns whether a signal handler raised an exception, which is then
// set.
bool IsInterrupted(Completion* completion) {
  while (!completion->WaitFor(kSlice)) {
    if (HasRaised()) return true;
  }
  return false;
}

struct ControlCall {
  std::shared_ptr<client::Connection> connection;
  std::string rpc;
  std::string request;
  client::TimeLimit limit;
  absl::StatusOr<std::string> answer = absl::CancelledError("the call was interrupted");
  Completion completion{1};
};

CallNotes NotesOf(const client::CallResult& result) {
  return {result.pushback.has_value(), result.statistics.num_messages};
}

}  // namespace

void NoteMainThread(unsigned long ident) { main_thread.store(ident, std::memory_order_relaxed); }

bool WaitInterruptibly(Completion* completion, absl::Duration timeout) {
  if (completion->IsReady()) return true;
  const absl::Time deadline = absl::Now() + timeout;
  const absl::Duration slice = LooksForSignals() ? kSlice : absl::InfiniteDuration();
  while (true) {
    const absl::Duration left = deadline - absl::Now();
    {
      const py::gil_scoped_release no_gil;
      if (completion->WaitFor(std::min(slice, left))) return true;
    }
    if (left <= slice) return false;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  }
}

CallScope::CallScope(client::Cancellation* cancellation, CallNotes* notes) {
  current_cancellation = cancellation;
  current_notes = notes;
}

CallScope::~CallScope() {
  current_cancellation = nullptr;
  current_notes = nullptr;
}

SignalsLater::SignalsLater() { ++num_signals_later; }

SignalsLater::~SignalsLater() { --num_signals_later; }

void InterruptibleConnection::StartInfer(const client::Inference& inference,
                                         const client::CallContext& context, Done done) {
  client::CallContext own = context;
  if (own.cancellation == nullptr) own.cancellation = current_cancellation;
  if (current_notes != nullptr) {
    done = [notes = current_notes, done = std::move(done)](client::CallResult&& result) mutable {
      *notes = NotesOf(result);
      std::move(done)(std::move(result));
    };
  }
  connection_->StartInfer(inference, own, std::move(done));
}

client::CallResult InterruptibleConnection::Infer(const client::Inference& inference,
                                                  const client::CallContext& context) {
  CallNotes* const notes = current_notes;
  client::CallResult result = LooksForSignals() ? InferInterruptibly(inference, context)
                                                : connection_->Infer(inference, context);
  if (notes != nullptr) *notes = NotesOf(result);
  return result;
}

client::CallResult InterruptibleConnection::InferInterruptibly(const client::Inference& inference,
                                                               const client::CallContext& context) {
  client::Cancellation cancellation;
  const std::function<void()> look_for_signals = [&cancellation] {
    if (!cancellation.is_cancelled() && HasRaised()) cancellation.Cancel();
  };
  client::CallContext own = context;
  own.cancellation = &cancellation;
  own.while_waiting = &look_for_signals;
  return connection_->Infer(inference, own);
}

absl::StatusOr<std::string> InterruptibleConnection::Control(absl::string_view rpc,
                                                             const std::string& request,
                                                             const client::TimeLimit& limit) {
  if (!LooksForSignals()) return connection_->Control(rpc, request, limit);
  // Not make_shared, which would move the completion.
  const std::shared_ptr<ControlCall> call(
      new ControlCall{connection_, std::string(rpc), request, limit});
  std::thread thread([call] {
    call->answer = call->connection->Control(call->rpc, call->request, call->limit);
    call->completion.EndOne();
  });
  if (IsInterrupted(&call->completion)) {
    thread.detach();
    return absl::CancelledError("the call was interrupted");
  }
  thread.join();
  return std::move(call->answer);
}

}  // namespace swiglu::python
