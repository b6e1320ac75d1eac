// SPDX-License-Identifier: Apache-2.0
//
// The extension module swiglu._core: which names Python sees. swiglu/_core.pyi has the types and
// what each name does.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/python/client_object.h"
#include "client/python/client_state.h"
#include "client/python/completion.h"
#include "client/python/future.h"
#include "client/python/interruptible_connection.h"
#include "client/python/kept_arrays.h"
#include "client/python/model_call.h"
#include "client/python/names.h"
#include "swiglu/client.h"
#include "version/version.h"

namespace swiglu::python {
namespace {

using OptionalSeconds = std::optional<double>;

absl::optional<double> ToAbsl(OptionalSeconds seconds) {
  return seconds ? absl::optional<double>(*seconds) : absl::nullopt;
}

CallSettings TimeoutOnly(OptionalSeconds timeout) {
  CallSettings settings;
  settings.timeout = ToAbsl(timeout);
  return settings;
}

client::CallOptions ControlOptions(OptionalSeconds timeout) {
  return ToOptions(TimeoutOnly(timeout));
}

// The argument of a template that repeats.
template <size_t>
using Input = const py::object&;

// Defines a method whose arguments are the inputs of a call, as many as `inputs`, and the options
// that every call has. `function` gets the object, the inputs, `out` and the options.
template <typename Object, typename Class, typename Function, size_t... kI>
void DefineCall(Class* of, const char* name, std::index_sequence<kI...>,
                const std::array<const char*, sizeof...(kI)>& inputs, Function function) {
  of->def(
      name,
      [function](Object& self, Input<kI>... values, const py::object& out, OptionalSeconds timeout,
                 const std::string& request_id, const std::string& traceparent, uint64_t priority,
                 const std::shared_ptr<Statistics>& statistics) {
        const std::array<py::object, sizeof...(kI)> all = {values...};
        return function(
            self, absl::MakeSpan(all), out,
            CallSettings{ToAbsl(timeout), request_id, traceparent, priority, statistics});
      },
      py::arg(inputs[kI])..., py::kw_only(), py::arg("out") = py::none(),
      py::arg("timeout") = py::none(), py::arg("request_id") = "", py::arg("traceparent") = "",
      py::arg("priority") = 0, py::arg("statistics") = py::none());
}

// Defines the form of a call that blocks.
template <typename Object, typename Class, size_t kN>
void DefineBlocking(Class* of, const char* name, const char* const (&inputs)[kN],
                    Operation operation) {
  DefineCall<Object>(of, name, std::make_index_sequence<kN>(), std::to_array(inputs),
                     [operation](Object& self, absl::Span<const py::object> values,
                                 const py::object& out, const CallSettings& settings) {
                       return RunCall(self.handle(), self.Prepare(operation, values, out),
                                      settings);
                     });
}

// Defines both forms of a call.
template <typename Object, typename Class, size_t kN>
void DefineForms(Class* of, const std::string& name, const char* const (&inputs)[kN],
                 Operation operation) {
  DefineBlocking<Object>(of, name.c_str(), inputs, operation);
  DefineCall<Object>(
      of, (name + "_async").c_str(), std::make_index_sequence<kN>(), std::to_array(inputs),
      [operation](Object& self, absl::Span<const py::object> values, const py::object& out,
                  CallSettings settings) {
        return std::make_unique<Future>(self.handle(), self.Prepare(operation, values, out),
                                        std::move(settings));
      });
}

void DefineMany(py::class_<ClientObject>* of, const std::string& name, Operation operation) {
  of->def((name + "_many").c_str(),
          [operation](const ClientObject& self, const py::iterable& calls, const py::object& out,
                      OptionalSeconds timeout, bool return_exceptions) {
            return self
                .StartMany(operation, calls, out, TimeoutOnly(timeout),
                           return_exceptions ? Failures::kReturn : Failures::kRaise)
                ->Finish();
          },
          py::arg("calls"), py::kw_only(), py::arg("out") = py::none(),
          py::arg("timeout") = py::none(), py::arg("return_exceptions") = false);
  of->def((name + "_many_async").c_str(),
          [operation](const ClientObject& self, const py::iterable& calls, const py::object& out,
                      OptionalSeconds timeout, bool return_exceptions) {
            return self.StartMany(operation, calls, out, TimeoutOnly(timeout),
                                  return_exceptions ? Failures::kReturn : Failures::kRaise);
          },
          py::arg("calls"), py::kw_only(), py::arg("out") = py::none(),
          py::arg("timeout") = py::none(), py::arg("return_exceptions") = false);
}

py::object ToSeconds(const absl::optional<absl::Duration>& duration) {
  return duration ? py::object(py::float_(absl::ToDoubleSeconds(*duration))) : py::none();
}

void DefineStatistics(py::module_* module) {
  const auto number = [](int64_t client::CallStatistics::*field) {
    return [field](const Statistics& self) { return self.call.*field; };
  };
  py::class_<Statistics, std::shared_ptr<Statistics>>(*module, "CallStatistics")
      .def(py::init<>())
      .def_property_readonly("num_messages",
                             [](const Statistics& self) { return self.call.num_messages; })
      .def_property_readonly("bytes_sent", number(&client::CallStatistics::bytes_sent))
      .def_property_readonly("bytes_received", number(&client::CallStatistics::bytes_received))
      .def_property_readonly("num_joined", number(&client::CallStatistics::num_joined))
      .def_property_readonly("server", [](const Statistics& self) { return self.call.server; })
      .def_property_readonly("queue_time",
                             [](const Statistics& self) { return ToSeconds(self.call.queue_time); })
      .def_property_readonly(
          "compute_time", [](const Statistics& self) { return ToSeconds(self.call.compute_time); })
      .def_property_readonly("weights_sha256",
                             [](const Statistics& self) { return self.weights_sha256; })
      .def("__repr__", [](const Statistics& self) {
        return absl::StrCat(
            "CallStatistics(num_messages=", self.call.num_messages,
            ", bytes_sent=", self.call.bytes_sent, ", bytes_received=", self.call.bytes_received,
            ", num_joined=", self.call.num_joined, ", server='", self.call.server, "')");
      });
}

void DefineFuture(py::module_* module) {
  py::class_<Notifier, std::shared_ptr<Notifier>>(*module, "Notifier")
      .def(py::init<>())
      .def("fileno", &Notifier::descriptor)
      .def("take", &Notifier::Take);
  py::class_<Future>(*module, "Future")
      .def(
          "result",
          [](Future& self, OptionalSeconds timeout) { return self.Result(ToAbsl(timeout)); },
          py::arg("timeout") = py::none())
      .def(
          "exception",
          [](Future& self, OptionalSeconds timeout) { return self.Exception(ToAbsl(timeout)); },
          py::arg("timeout") = py::none())
      .def("done", &Future::IsDone)
      .def("cancel", &Future::Cancel)
      .def("__await__",
           [](const py::object& self) {
             return py::module_::import("swiglu._aio").attr("wait_for")(self);
           })
      .def("_watch", &Future::Watch, py::arg("notifier"), py::arg("id"));
}

void DefineRegion(py::module_* module) {
  py::class_<Region>(*module, "SystemRegion", py::buffer_protocol())
      .def_property_readonly("name", &Region::name)
      .def_property_readonly("size_bytes", [](const Region& self) { return self.bytes().size(); })
      .def_buffer([](Region& self) {
        const absl::Span<std::byte> bytes = self.bytes();
        return py::buffer_info(reinterpret_cast<uint8_t*>(bytes.data()),
                               static_cast<py::ssize_t>(bytes.size()));
      })
      .def(
          "array",
          [](const py::object& self, const py::object& shape, const py::object& dtype,
             int64_t offset) { return GetNames().ndarray(shape, dtype, self, offset); },
          py::arg("shape"), py::arg("dtype") = "float32", py::arg("offset") = 0);
}

void DefineMlp(py::module_* module) {
  py::class_<MlpObject> mlp(*module, "Mlp");
  mlp.def_property_readonly("name", &MlpObject::name)
      .def_property_readonly("layer", &MlpObject::layer)
      .def_property_readonly("forward_model",
                             [](const MlpObject& self) { return self.mlp().forward_model(); })
      .def_property_readonly("backward_model",
                             [](const MlpObject& self) { return self.mlp().backward_model(); });
  DefineForms<MlpObject>(&mlp, "forward", {"x"}, Operation::kMlpForward);
  DefineForms<MlpObject>(&mlp, "backward", {"x", "dy"}, Operation::kMlpBackward);
  DefineBlocking<MlpObject>(&mlp, "gradients", {"x", "dy"}, Operation::kMlpGradients);
}

py::object ToTensorInfos(const std::vector<client::TensorInfo>& tensors) {
  py::list infos;
  for (const client::TensorInfo& tensor : tensors) {
    infos.append(
        MakeTuple("TensorInfo", tensor.name, tensor.datatype, py::tuple(py::cast(tensor.shape))));
  }
  return infos;
}

// The function that lists the regions of a kind.
auto ListRegions(client::RegionKind kind) {
  return [kind](const ClientObject& self, OptionalSeconds limit) {
    const ClientHandle handle = self.handle();
    py::list regions;
    for (const client::RegionInfo& region :
         CallWithoutGil([&] { return handle->client.ListRegions(kind, ControlOptions(limit)); })) {
      regions.append(MakeTuple("RegionInfo", region.name, region.size_bytes));
    }
    return regions;
  };
}

// The calls without tensors.
void DefineControl(py::class_<ClientObject>* of) {
  const auto timeout = py::arg("timeout") = py::none();
  of->def(
        "server_live",
        [](const ClientObject& self, OptionalSeconds limit) {
          const ClientHandle handle = self.handle();
          return CallWithoutGil([&] { return handle->client.ServerLive(ControlOptions(limit)); });
        },
        py::kw_only(), timeout)
      .def(
          "server_ready",
          [](const ClientObject& self, OptionalSeconds limit) {
            const ClientHandle handle = self.handle();
            return CallWithoutGil(
                [&] { return handle->client.ServerReady(ControlOptions(limit)); });
          },
          py::kw_only(), timeout)
      .def(
          "model_ready",
          [](const ClientObject& self, const std::string& model, OptionalSeconds limit) {
            const ClientHandle handle = self.handle();
            return CallWithoutGil(
                [&] { return handle->client.ModelReady(model, ControlOptions(limit)); });
          },
          py::arg("model"), py::kw_only(), timeout)
      .def(
          "server_metadata",
          [](const ClientObject& self, OptionalSeconds limit) {
            const ClientHandle handle = self.handle();
            const client::ServerInfo info = CallWithoutGil(
                [&] { return handle->client.ServerMetadata(ControlOptions(limit)); });
            return MakeTuple("ServerInfo", info.name, info.version, info.extensions);
          },
          py::kw_only(), timeout)
      .def(
          "model_metadata",
          [](const ClientObject& self, const std::string& model, OptionalSeconds limit) {
            const ClientHandle handle = self.handle();
            const client::ModelInfo info = CallWithoutGil(
                [&] { return handle->client.ModelMetadata(model, ControlOptions(limit)); });
            return MakeTuple("ModelInfo", info.name, info.platform, info.versions,
                             ToTensorInfos(info.inputs), ToTensorInfos(info.outputs),
                             info.properties);
          },
          py::arg("model"), py::kw_only(), timeout)
      .def(
          "list_models",
          [](const ClientObject& self, OptionalSeconds limit) {
            const ClientHandle handle = self.handle();
            py::list models;
            for (const client::ModelState& model :
                 CallWithoutGil([&] { return handle->client.ListModels(ControlOptions(limit)); })) {
              models.append(
                  MakeTuple("ModelState", model.name, model.version, model.state, model.reason));
            }
            return models;
          },
          py::kw_only(), timeout)
      .def(
          "model_statistics",
          [](const ClientObject& self, const std::string& model, OptionalSeconds limit) {
            const ClientHandle handle = self.handle();
            py::list all;
            for (const client::ModelCounters& counters : CallWithoutGil([&] {
                   return handle->client.ModelStatistics(model, ControlOptions(limit));
                 })) {
              all.append(MakeTuple("ModelCounters", counters.name, counters.version,
                                   counters.num_requests, counters.num_batches,
                                   counters.num_succeeded, counters.num_failed,
                                   absl::ToDoubleSeconds(counters.request_time),
                                   absl::ToDoubleSeconds(counters.queue_time),
                                   absl::ToDoubleSeconds(counters.compute_time)));
            }
            return all;
          },
          py::arg("model") = "", py::kw_only(), timeout)
      .def("list_system_regions", ListRegions(client::RegionKind::kSystem), py::kw_only(), timeout)
      .def("list_cuda_regions", ListRegions(client::RegionKind::kCuda), py::kw_only(), timeout);
}

std::unique_ptr<ClientObject> MakeClient(const std::string& address, OptionalSeconds timeout,
                                         int num_connections, int64_t max_message_bytes,
                                         int64_t chunk_bytes, int max_attempts, double retry_budget,
                                         int64_t coalesce_bytes, double hedge_delay, bool streams,
                                         bool spin, int64_t server_device) {
  client::Options options;
  if (timeout) options.timeout = absl::Seconds(*timeout);
  options.num_connections = num_connections;
  options.max_message_bytes = max_message_bytes;
  options.chunk_bytes = chunk_bytes;
  options.max_attempts = max_attempts;
  options.retry_budget = retry_budget;
  options.coalesce_bytes = coalesce_bytes;
  options.hedge_delay = absl::Seconds(hedge_delay);
  options.streams = streams;
  options.spin = spin;
  return std::make_unique<ClientObject>(address, options, server_device);
}

void DefineClient(py::module_* module) {
  const client::Options defaults;
  py::class_<ClientObject> of(*module, "Client");
  of.def(py::init(&MakeClient), py::arg("address"), py::kw_only(), py::arg("timeout") = py::none(),
         py::arg("num_connections") = defaults.num_connections,
         py::arg("max_message_bytes") = defaults.max_message_bytes,
         py::arg("chunk_bytes") = defaults.chunk_bytes,
         py::arg("max_attempts") = defaults.max_attempts,
         py::arg("retry_budget") = defaults.retry_budget,
         py::arg("coalesce_bytes") = defaults.coalesce_bytes, py::arg("hedge_delay") = 0.0,
         py::arg("streams") = defaults.streams, py::arg("spin") = defaults.spin,
         py::arg("server_device") = -1)
      .def_property_readonly("address", &ClientObject::address)
      .def("close", &ClientObject::Close)
      .def("__enter__", [](const py::object& self) { return self; })
      .def("__exit__", [](ClientObject& self, const py::args&) { self.Close(); })
      .def("__repr__",
           [](const ClientObject& self) {
             return absl::StrCat("<swiglu.Client of ", self.address(),
                                 self.is_closed() ? ", closed>" : ">");
           })
      .def(
          "mlp",
          [](const ClientObject& self, const std::string& name, int layer) {
            return MlpObject(self.handle(), name, layer);
          },
          py::arg("name"), py::arg("layer"))
      .def(
          "system_region",
          [](const ClientObject& self, int64_t size_bytes, const std::string& name,
             const std::string& file_prefix, unsigned mode, OptionalSeconds timeout) {
            client::SystemRegionOptions options;
            options.name = name;
            options.file_prefix = file_prefix;
            options.mode = mode;
            if (timeout) options.timeout = absl::Seconds(*timeout);
            return std::make_unique<Region>(self.handle(), size_bytes, options);
          },
          py::arg("size_bytes"), py::kw_only(), py::arg("name") = "",
          py::arg("file_prefix") = "swiglu-", py::arg("mode") = 0600,
          py::arg("timeout") = py::none());
  of.def("release_gpu_memory", [](const ClientObject& self) {
    DropKept();
    const ClientHandle handle = self.handle();
    CallWithoutGil([&] {
      handle->gpu_memory.ForgetAll();
      return absl::OkStatus();
    });
  });
  DefineForms<ClientObject>(&of, "forward", {"e", "g"}, Operation::kForward);
  DefineForms<ClientObject>(&of, "backward", {"dw", "e", "g"}, Operation::kBackward);
  DefineMany(&of, "forward", Operation::kForward);
  DefineMany(&of, "backward", Operation::kBackward);
  DefineControl(&of);
}

}  // namespace

PYBIND11_MODULE(_core, module) {
  LoadNames();
  // Of the module's own Abseil. Its lock may be held by another thread at a fork.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  module.attr("__version__") = kVersion;
  module.def("tune_process", &client::TuneProcess);
  module.def("_note_main_thread", &NoteMainThread, py::arg("ident"));
  module.def("_finish_abandoned", &Future::FinishAbandoned);
  DefineStatistics(&module);
  DefineFuture(&module);
  DefineRegion(&module);
  DefineMlp(&module);
  DefineClient(&module);
}

}  // namespace swiglu::python
