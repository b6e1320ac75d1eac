// SPDX-License-Identifier: Apache-2.0
//
// Makes clients and calls.
#include "client/python/client_object.h"

#include "absl/strings/str_cat.h"
#include "client/python/interruptible_connection.h"
#include "client/python/kept_arrays.h"
#include "client/python/names.h"
#include "swiglu/connection.h"

namespace swiglu::python {
namespace {

client::Client Connect(const std::string& address, const client::Options& options) {
  auto connection = CallWithoutGil([&] { return client::MakeConnection(address, options); });
  return client::Client(std::make_shared<InterruptibleConnection>(std::move(connection)), options);
}

// The inputs of one call of several.
std::vector<py::object> InputsOf(py::handle item, size_t num_inputs) {
  const auto given = py::reinterpret_steal<py::object>(
      PySequence_Fast(item.ptr(), "a call's inputs are a sequence of arrays"));
  if (!given) throw py::error_already_set();
  const auto num_given = static_cast<size_t>(PySequence_Fast_GET_SIZE(given.ptr()));
  if (num_given != num_inputs) {
    throw py::value_error(absl::StrCat("a call has ", num_given, " inputs; it takes ", num_inputs));
  }
  std::vector<py::object> inputs;
  for (size_t i = 0; i < num_inputs; ++i) {
    inputs.push_back(py::reinterpret_borrow<py::object>(
        PySequence_Fast_GET_ITEM(given.ptr(), static_cast<Py_ssize_t>(i))));
  }
  return inputs;
}

}  // namespace

py::object RunCall(const ClientHandle& client, ModelCall call, const CallSettings& settings) {
  CallEnd end;
  client::CallOptions options = ToOptions(settings);
  if (settings.statistics) options.statistics = &end.statistics;
  {
    const py::gil_scoped_release no_gil;
    call.Run(*client, options, &end);
  }
  if (settings.statistics) *settings.statistics = {end.statistics, end.weights_sha256};
  {
    // What this runs of Python must not see the exception of a signal handler.
    const py::error_scope interrupted;
    call.NoteEnd(*client, end);
  }
  if (PyErr_Occurred() != nullptr) throw py::error_already_set();
  ThrowUnlessOk(end.status);
  return call.TakeResult(&end);
}

ClientObject::ClientObject(const std::string& address, const client::Options& options,
                           int64_t server_device)
    : address_(address), handle_(MakeHandle(Connect(address, options), options, server_device)) {}

void ClientObject::Close() {
  DropKept();
  handle_.reset();
}

ClientHandle ClientObject::handle() const {
  if (!handle_) Throw(absl::FailedPreconditionError("this client is closed"));
  return handle_;
}

std::unique_ptr<Future> ClientObject::StartMany(Operation operation, const py::iterable& items,
                                                const py::object& out, CallSettings settings,
                                                Failures failures) const {
  const size_t num_inputs = operation == Operation::kForward ? 2 : 3;
  std::vector<ModelCall> calls;
  calls.reserve(py::len_hint(items));
  const auto outs = out.is_none() ? py::list() : py::list(out);
  for (const py::handle item : items) {
    if (!out.is_none() && calls.size() == outs.size()) {
      throw py::value_error(absl::StrCat("out has ", outs.size(), " elements, fewer than calls"));
    }
    calls.push_back(Prepare(operation, InputsOf(item, num_inputs),
                            out.is_none() ? py::none() : py::object(outs[calls.size()])));
  }
  if (!out.is_none() && calls.size() != outs.size()) {
    throw py::value_error(
        absl::StrCat("out has ", outs.size(), " elements for ", calls.size(), " calls"));
  }
  return std::make_unique<Future>(handle(), std::move(calls), std::move(settings), failures);
}

}  // namespace swiglu::python
