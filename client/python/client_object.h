// SPDX-License-Identifier: Apache-2.0
//
// The classes swiglu.Client and swiglu.Mlp: what their methods do.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "client/python/client_state.h"
#include "client/python/future.h"
#include "client/python/model_call.h"
#include "client/python/names.h"
#include "swiglu/client.h"
#include "swiglu/options.h"

namespace swiglu::python {

namespace py = pybind11;

// Calls `call`, which returns a status or what holds one, with the GIL released. Throws what a
// signal handler raised meanwhile, and the error of the status.
template <typename Call>
auto CallWithoutGil(const Call& call) {
  auto result = [&] {
    const py::gil_scoped_release no_gil;
    return call();
  }();
  if (PyErr_Occurred() != nullptr) throw py::error_already_set();
  if constexpr (std::is_same_v<decltype(result), absl::Status>) {
    ThrowUnlessOk(result);
  } else {
    ThrowUnlessOk(result.status());
    return *std::move(result);
  }
}

// Makes a call, and returns what Python gets. Throws its error.
py::object RunCall(const ClientHandle& client, ModelCall call, const CallSettings& settings);

// Needs the GIL.
class ClientObject {
 public:
  // `server_device` is that of GpuMemory.
  ClientObject(const std::string& address, const client::Options& options, int64_t server_device);

  const std::string& address() const { return address_; }

  // A copy, which lives while the GIL is released and another thread closes this object. Throws
  // FAILED_PRECONDITION after Close.
  ClientHandle handle() const;

  // Drops the connections, once the calls that run have ended.
  void Close();
  bool is_closed() const { return handle_ == nullptr; }

  ModelCall Prepare(Operation operation, absl::Span<const py::object> inputs,
                    const py::object& out) const {
    return ModelCall(operation, *handle(), absl::nullopt, inputs, out);
  }

  // `items` are sequences of inputs. `out` is None, or a sequence with what each call takes as out.
  std::unique_ptr<Future> StartMany(Operation operation, const py::iterable& items,
                                    const py::object& out, CallSettings settings,
                                    Failures failures) const;

 private:
  const std::string address_;
  ClientHandle handle_;
};

// Needs the GIL.
class MlpObject {
 public:
  MlpObject(ClientHandle client, const std::string& name, int layer)
      : client_(std::move(client)),
        name_(name),
        layer_(layer),
        mlp_(client_->client.Mlp(name, layer)) {}

  const ClientHandle& handle() const { return client_; }
  const std::string& name() const { return name_; }
  int layer() const { return layer_; }
  const client::Mlp& mlp() const { return mlp_; }

  ModelCall Prepare(Operation operation, absl::Span<const py::object> inputs,
                    const py::object& out) const {
    return ModelCall(operation, *client_, mlp_, inputs, out);
  }

 private:
  const ClientHandle client_;
  const std::string name_;
  const int layer_;
  const client::Mlp mlp_;
};

}  // namespace swiglu::python
