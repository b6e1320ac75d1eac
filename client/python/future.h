// SPDX-License-Identifier: Apache-2.0
//
// What Python gets for calls that have not ended yet.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/optional.h"
#include "client/python/client_state.h"
#include "client/python/completion.h"
#include "client/python/model_call.h"

namespace swiglu::python {

namespace py = pybind11;

// Whether the results of several calls hold the exceptions of those that failed, or the first
// exception is raised.
enum class Failures { kRaise, kReturn };

// The result of a call, or the list of the results of several. Needs the GIL. When it is destroyed
// before the calls have ended, they are cancelled. Their arrays live until they have ended.
class Future {
 public:
  // Starts a call.
  Future(ClientHandle client, ModelCall call, CallSettings settings);
  // Starts several calls.
  Future(ClientHandle client, std::vector<ModelCall> calls, CallSettings settings,
         Failures failures);
  ~Future();
  Future(const Future&) = delete;
  Future& operator=(const Future&) = delete;

  // Waits for `timeout` seconds at most, and returns what the calls returned, or raises their
  // exception. Raises TimeoutError if they have not ended then.
  py::object Result(absl::optional<double> timeout);
  // The same, but returns the exception, or None.
  py::object Exception(absl::optional<double> timeout);

  bool IsDone() const { return completion_->IsReady(); }
  // Asks the calls to end. Returns whether they had not ended yet.
  bool Cancel();
  // Tells `notifier` when the calls have ended.
  void Watch(std::shared_ptr<Notifier> notifier, int64_t id) {
    completion_->Watch(std::move(notifier), id);
  }

  // The result, for a caller who has no future. Ctrl-C meanwhile cancels the calls.
  py::object Finish();

  // Waits a little for the calls of futures that are gone.
  static void FinishAbandoned();

 private:
  struct Borrowed;

  void Start();
  // Cancels the calls if they have not ended, and keeps what they use until they have.
  void Abandon();
  void Wait(absl::optional<double> timeout);
  // Makes the result. Needs that the calls have ended.
  void Collect();

  // What the calls use until they have ended.
  std::shared_ptr<Borrowed> borrowed_;
  std::shared_ptr<Completion> completion_;
  const CallSettings settings_;
  const bool is_one_;
  const Failures failures_;
  // Once collected: one of them.
  py::object result_;
  py::object exception_;
};

}  // namespace swiglu::python
