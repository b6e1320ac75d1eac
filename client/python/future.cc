// SPDX-License-Identifier: Apache-2.0
//
// Starts calls, and turns their ends into Python's results and exceptions.
#include "client/python/future.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "client/python/interruptible_connection.h"
#include "client/python/joined_calls.h"
#include "client/python/names.h"

namespace swiglu::python {

// Destroyed when the calls have ended.
struct Future::Borrowed {
  ~Borrowed() {
    // No call has started without one.
    if (completion == nullptr) return;
    for (size_t i = 0; i < calls.size(); ++i) calls[i].NoteEnd(*client, completion->end(i));
  }

  ClientHandle client;
  std::vector<ModelCall> calls;
  std::shared_ptr<Completion> completion;
};

namespace {

// What calls use whose futures are gone. The GIL guards it. It is not destroyed at the end of the
// process, because threads of the client may still use the memory.
template <typename Borrowed>
std::vector<std::shared_ptr<Borrowed>>& Abandoned() {
  static auto* abandoned = new std::vector<std::shared_ptr<Borrowed>>();
  return *abandoned;
}

template <typename Borrowed>
void SweepAbandoned() {
  auto& all = Abandoned<Borrowed>();
  if (all.empty()) return;
  // Destroying an array may run Python code, which may come here again.
  std::vector<std::shared_ptr<Borrowed>> ended;
  for (auto& one : all) {
    if (one->completion->IsReady()) ended.push_back(std::move(one));
  }
  all.erase(std::remove(all.begin(), all.end(), nullptr), all.end());
}

// How long Ctrl-C and the end of the process wait for calls that were cancelled. What was sent
// together with other calls goes on.
constexpr absl::Duration kLongestCancellation = absl::Seconds(1);

absl::Duration ToDuration(absl::optional<double> timeout) {
  return timeout ? absl::Seconds(*timeout) : absl::InfiniteDuration();
}

std::vector<ModelCall> OneCall(ModelCall call) {
  std::vector<ModelCall> calls;
  calls.push_back(std::move(call));
  return calls;
}

}  // namespace

Future::Future(ClientHandle client, ModelCall call, CallSettings settings)
    : borrowed_(new Borrowed{std::move(client), OneCall(std::move(call)),
                             std::make_shared<Completion>(1)}),
      completion_(borrowed_->completion),
      settings_(std::move(settings)),
      is_one_(true),
      failures_(Failures::kRaise) {
  Start();
}

Future::Future(ClientHandle client, std::vector<ModelCall> calls, CallSettings settings,
               Failures failures)
    : borrowed_(new Borrowed{std::move(client), std::move(calls), nullptr}),
      completion_(std::make_shared<Completion>(borrowed_->calls.size())),
      settings_(std::move(settings)),
      is_one_(false),
      failures_(failures) {
  borrowed_->completion = completion_;
  Start();
}

void Future::Start() {
  SweepAbandoned<Borrowed>();
  client::CallOptions options = ToOptions(settings_);
  {
    const py::gil_scoped_release no_gil;
    if (is_one_) {
      if (settings_.statistics) options.statistics = &completion_->end(0).statistics;
      borrowed_->calls[0].Start(*borrowed_->client, options, completion_, 0).IgnoreError();
    } else {
      StartAll(*borrowed_->client, options, absl::MakeSpan(borrowed_->calls), completion_);
    }
  }
  if (PyErr_Occurred() == nullptr) return;
  // A signal handler raised it while memory of a GPU was registered.
  py::error_already_set interrupted;
  Abandon();
  throw std::move(interrupted);
}

Future::~Future() { Abandon(); }

void Future::Abandon() {
  if (!borrowed_ || completion_->IsReady()) return;
  if (!completion_->IsOfParent()) completion_->Cancel();
  Abandoned<Borrowed>().push_back(std::move(borrowed_));
}

void Future::FinishAbandoned() {
  std::vector<std::shared_ptr<Completion>> completions;
  for (const auto& one : Abandoned<Borrowed>()) {
    if (!one->completion->IsOfParent()) completions.push_back(one->completion);
  }
  const py::gil_scoped_release no_gil;
  const absl::Time deadline = absl::Now() + kLongestCancellation;
  for (const auto& completion : completions) completion->WaitFor(deadline - absl::Now());
}

bool Future::Cancel() {
  if (IsDone() || completion_->IsOfParent()) return false;
  // It may run what stops the call.
  const std::shared_ptr<Completion> completion = completion_;
  const py::gil_scoped_release no_gil;
  completion->Cancel();
  return true;
}

void Future::Wait(absl::optional<double> timeout) {
  if (IsDone()) return Collect();
  if (completion_->IsOfParent()) {
    Throw(absl::FailedPreconditionError(
        "this call was made before fork(); it never ends in the child"));
  }
  const std::shared_ptr<Completion> completion = completion_;
  if (!WaitInterruptibly(completion.get(), ToDuration(timeout))) {
    PyErr_SetString(PyExc_TimeoutError, "the call has not ended yet");
    throw py::error_already_set();
  }
  Collect();
}

py::object Future::Result(absl::optional<double> timeout) {
  Wait(timeout);
  if (exception_) {
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception_.ptr())), exception_.ptr());
    throw py::error_already_set();
  }
  return result_;
}

py::object Future::Exception(absl::optional<double> timeout) {
  Wait(timeout);
  return exception_ ? exception_ : py::none();
}

py::object Future::Finish() {
  try {
    return Result(absl::nullopt);
  } catch (const py::error_already_set&) {
    if (!IsDone()) {
      const py::gil_scoped_release no_gil;
      completion_->Cancel();
      completion_->WaitFor(kLongestCancellation);
    }
    throw;
  }
}

void Future::Collect() {
  // Another thread that waits for it, too, may be first, now or while this one runs Python code.
  const std::shared_ptr<Borrowed> borrowed = borrowed_;
  if (!borrowed) return;
  const size_t num_calls = completion_->num_calls();
  py::list results(num_calls);
  py::object exception;
  for (size_t i = 0; i < num_calls; ++i) {
    CallEnd& end = completion_->end(i);
    results[i] = end.status.ok() ? borrowed->calls[i].TakeResult(&end) : ToException(end.status);
    const bool is_raised = !end.status.ok() && failures_ == Failures::kRaise;
    if (is_raised && !exception) exception = results[i];
  }
  if (!borrowed_) return;
  if (settings_.statistics) {
    *settings_.statistics = {completion_->end(0).statistics, completion_->end(0).weights_sha256};
  }
  if (exception) {
    exception_ = std::move(exception);
  } else {
    result_ = is_one_ ? py::object(results[0]) : std::move(results);
  }
  borrowed_.reset();
}

}  // namespace swiglu::python
