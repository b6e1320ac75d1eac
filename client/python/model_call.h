// SPDX-License-Identifier: Apache-2.0
//
// One call of a model with Python's arrays: what the caller passes becomes tensors for the client
// library, and results of the caller's kind.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "client/python/array.h"
#include "client/python/client_state.h"
#include "client/python/completion.h"
#include "swiglu/client_mlp.h"
#include "swiglu/options.h"
#include "swiglu/tensor_place.h"

namespace swiglu::python {

// The operations of the library.
enum class Operation { kForward, kBackward, kMlpForward, kMlpBackward, kMlpGradients };

// What Python sees of client::CallStatistics. Needs the GIL.
struct Statistics {
  client::CallStatistics call;
  std::string weights_sha256;
};

// The options that every call of a model has.
struct CallSettings {
  absl::optional<double> timeout;
  std::string request_id;
  std::string traceparent;
  uint64_t priority = 0;
  std::shared_ptr<Statistics> statistics;  // nullptr: not asked for
};

client::CallOptions ToOptions(const CallSettings& settings);

// A call that is ready to be made. Move-only. It keeps the arrays until it is destroyed. Needs the
// GIL, except Run and Start.
class ModelCall {
 public:
  // `inputs` are as many as the operation has. `out` is None, an array if the operation has one
  // output, or else a sequence of arrays, each of which may be None. Results that the caller gives
  // no array for are made like the first input. Throws what Array throws, and ValueError if an
  // output does not fit the inputs, or overlaps another tensor and is not all of an input.
  ModelCall(Operation operation, const ClientState& client, absl::optional<client::Mlp> mlp,
            absl::Span<const py::object> inputs, const py::object& out);
  ModelCall(ModelCall&&) = default;
  ModelCall& operator=(ModelCall&&) = default;

  // Makes the call. Blocks. `end` gets how it ended.
  void Run(ClientState& client, const client::CallOptions& options, CallEnd* end);

  // Starts the call, which ends as that call of `completion`. Not for gradients. Blocks while
  // memory of a GPU is registered, and until the work on it is done that was begun before. Returns
  // the error with which the call has ended if such memory cannot be used.
  absl::Status Start(ClientState& client, const client::CallOptions& options,
                     const std::shared_ptr<Completion>& completion, size_t call);

  // Call it when the call has ended. If that was with an error, keeps outputs on a GPU for a while
  // that the server may still write to, and forgets regions that the server does not know.
  void NoteEnd(ClientState& client, const CallEnd& end);

  // The bytes of its inputs and outputs.
  int64_t NumBytes() const;

  // Whether it may be a part of a larger call: it is elementwise, its inputs fit each other, and
  // all its tensors are in ordinary memory of the host.
  bool IsJoinable() const;
  // Whether a tensor of it is in memory of a GPU.
  bool IsOnGpu() const;
  Operation operation() const { return operation_; }
  absl::Span<const Array> inputs() const { return inputs_; }
  absl::Span<const Array> outputs() const { return outputs_; }

  // What Python gets, after the call has ended well. Call it once if the library makes the results.
  py::object TakeResult(CallEnd* end);

 private:
  client::TensorView View(size_t input) const;
  client::InputTensor In(size_t input) const;
  client::OutputTensor Out(size_t output) const;
  void TakeOutputs(const py::object& out);
  absl::Status CheckInputs() const;
  void CheckOutputs() const;
  void FindParts(const ClientState& client);
  absl::Status ShareGpuMemory(ClientState& client, absl::Time deadline);
  void ForgetGpuMemory(ClientState& client);
  // Whether a call ended like this because the server does not know a region of it.
  bool IsOfUnknownRegion(const absl::Status& status) const;
  void RunOnGpu(ClientState& client, const client::CallOptions& options, absl::Time deadline,
                CallEnd* end);
  void StartSending(const client::Client& client, const client::CallOptions& options,
                    const std::shared_ptr<Completion>& completion, CallEnd* end) const;
  void Make(const client::Client& client, const client::CallOptions& options, CallEnd* end) const;

  Operation operation_;
  absl::optional<client::Mlp> mlp_;
  absl::InlinedVector<Array, 3> inputs_;
  absl::InlinedVector<Array, 4> outputs_;
  absl::InlinedVector<absl::optional<client::RegionPart>, 3> input_parts_;
  absl::InlinedVector<absl::optional<client::RegionPart>, 4> output_parts_;
  py::object result_;
  // The library makes the results.
  bool has_outputs_ = true;
};

}  // namespace swiglu::python
