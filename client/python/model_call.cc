// SPDX-License-Identifier: Apache-2.0
//
// From Python's arrays to calls of the client library and back.
#include "client/python/model_call.h"

#include <algorithm>
#include <functional>
#include <new>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/python/interruptible_connection.h"
#include "client/python/kept_arrays.h"
#include "client/python/names.h"

namespace swiglu::python {
namespace {

using client::CallOptions;
using client::Client;

// The names of an operation's tensors, for errors, and of the tuple of its results if there are
// several.
struct TensorNames {
  absl::Span<const char* const> inputs;
  absl::Span<const char* const> outputs;
  const char* tuple;
};

TensorNames NamesOf(Operation operation) {
  static constexpr const char* kForwardInputs[] = {"e", "g"};
  static constexpr const char* kForwardOutputs[] = {"h"};
  static constexpr const char* kBackwardInputs[] = {"dw", "e", "g"};
  static constexpr const char* kBackwardOutputs[] = {"h", "df", "de"};
  static constexpr const char* kMlpInputs[] = {"x", "dy"};
  static constexpr const char* kMlpForwardOutputs[] = {"y"};
  static constexpr const char* kGradients[] = {"dx", "d_gate_proj", "d_up_proj", "d_down_proj"};
  switch (operation) {
    case Operation::kForward:
      return {kForwardInputs, kForwardOutputs, nullptr};
    case Operation::kBackward:
      return {kBackwardInputs, kBackwardOutputs, "BackwardResult"};
    case Operation::kMlpForward:
      return {absl::MakeSpan(kMlpInputs, 1), kMlpForwardOutputs, nullptr};
    case Operation::kMlpBackward:
      return {kMlpInputs, absl::MakeSpan(kGradients, 1), nullptr};
    case Operation::kMlpGradients:
      return {kMlpInputs, kGradients, "MlpGradients"};
  }
  return {};
}

// Whether two stretches share some bytes, but not all of them.
bool OverlapInPart(absl::Span<const std::byte> one, absl::Span<const std::byte> other) {
  if (one.empty() || other.empty()) return false;
  if (one.data() == other.data() && one.size() == other.size()) return false;
  const std::less<const std::byte*> is_before;
  return is_before(one.data(), other.data() + other.size()) &&
         is_before(other.data(), one.data() + one.size());
}

bool IsSame(absl::Span<const std::byte> one, absl::Span<const std::byte> other) {
  return !one.empty() && one.data() == other.data();
}

// Fills the end of a call of an MLP whose result lies in its outputs.
void EndInto(absl::StatusOr<std::string> weights, CallEnd* end) {
  end->status = weights.status();
  if (weights.ok()) end->weights_sha256 = *std::move(weights);
}

// Fills the end of a call of an MLP whose results the library has made.
template <typename Result, typename... Tensors>
void EndWith(absl::StatusOr<Result> result, CallEnd* end, Tensors Result::*... tensors) {
  end->status = result.status();
  if (!result.ok()) return;
  end->weights_sha256 = std::move(result->weights_sha256);
  (end->tensors.push_back(std::move((*result).*tensors)), ...);
}

}  // namespace

CallOptions ToOptions(const CallSettings& settings) {
  CallOptions options;
  if (settings.timeout) options.timeout = absl::Seconds(*settings.timeout);
  options.request_id = settings.request_id;
  options.traceparent = settings.traceparent;
  options.priority = settings.priority;
  return options;
}

ModelCall::ModelCall(Operation operation, const ClientState& client,
                     absl::optional<client::Mlp> mlp, absl::Span<const py::object> inputs,
                     const py::object& out)
    : operation_(operation), mlp_(std::move(mlp)) {
  const TensorNames names = NamesOf(operation);
  for (size_t i = 0; i < inputs.size(); ++i) {
    inputs_.push_back(Array::Input(inputs[i], names.inputs[i]));
  }
  DropKept();
  if (operation == Operation::kMlpGradients && out.is_none()) {
    if (IsOnGpu()) throw py::value_error("gradients of tensors on a GPU take out");
    has_outputs_ = false;
  } else {
    TakeOutputs(out);
    if (!out.is_none()) CheckOutputs();
  }
  FindParts(client);
}

void ModelCall::TakeOutputs(const py::object& out) {
  const TensorNames names = NamesOf(operation_);
  const size_t num_outputs = names.outputs.size();
  if (num_outputs == 1) {
    result_ = out.is_none() ? inputs_[0].NewLikeThis() : out;
    outputs_.push_back(Array::Output(result_, names.outputs[0]));
    return;
  }
  py::tuple given(num_outputs);
  for (size_t i = 0; i < num_outputs; ++i) given[i] = py::none();
  if (!out.is_none()) given = py::tuple(out);
  if (given.size() != num_outputs) {
    throw py::value_error(
        absl::StrCat("out has ", given.size(), " arrays; it takes ", num_outputs));
  }
  py::tuple results(num_outputs);
  for (size_t i = 0; i < num_outputs; ++i) {
    py::object result = given[i];
    if (result.is_none() && operation_ == Operation::kMlpGradients) {
      throw py::value_error(absl::StrCat("out has no array for '", names.outputs[i], "'"));
    }
    if (result.is_none()) result = inputs_[0].NewLikeThis();
    outputs_.push_back(Array::Output(result, names.outputs[i]));
    results[i] = result;
  }
  result_ = GetNames().types.attr(names.tuple)(*results);
}

absl::Status ModelCall::CheckInputs() const {
  switch (operation_) {
    case Operation::kForward:
      return client::CheckForward(View(0), View(1));
    case Operation::kBackward:
      return client::CheckBackward(View(0), View(1), View(2));
    case Operation::kMlpForward:
      return mlp_->CheckForward(View(0));
    case Operation::kMlpBackward:
    case Operation::kMlpGradients:
      return mlp_->CheckBackward(View(0), View(1));
  }
  return absl::OkStatus();
}

void ModelCall::CheckOutputs() const {
  // What is wrong with the inputs is said first.
  ThrowUnlessOk(CheckInputs());
  const TensorNames names = NamesOf(operation_);
  const Array& like = inputs_[0];
  for (size_t i = 0; i < outputs_.size(); ++i) {
    const Array& output = outputs_[i];
    const bool is_of_weights = operation_ == Operation::kMlpGradients && i > 0;
    const client::Dtype dtype = is_of_weights ? client::Dtype::kFp32 : like.dtype();
    if (output.dtype() != dtype) {
      throw py::value_error(absl::StrCat("output '", names.outputs[i], "' is ",
                                         client::DatatypeName(output.dtype()), "; it takes ",
                                         client::DatatypeName(dtype)));
    }
    if (!is_of_weights && output.shape() != like.shape()) {
      throw py::value_error(absl::StrCat("shape of output '", names.outputs[i], "' is ",
                                         client::FormatShape(output.shape()), "; the inputs have ",
                                         client::FormatShape(like.shape())));
    }
  }
  for (size_t i = 0; i < outputs_.size(); ++i) {
    for (size_t j = 0; j < inputs_.size(); ++j) {
      if (!OverlapInPart(outputs_[i].bytes(), inputs_[j].bytes())) continue;
      throw py::value_error(absl::StrCat("'", names.outputs[i], "' overlaps '", names.inputs[j],
                                         "' in part; it may be all of its memory"));
    }
    for (size_t j = 0; j < i; ++j) {
      const absl::Span<const std::byte> one = outputs_[i].bytes(), other = outputs_[j].bytes();
      if (!OverlapInPart(one, other) && !IsSame(one, other)) continue;
      throw py::value_error(
          absl::StrCat("'", names.outputs[i], "' overlaps '", names.outputs[j], "'"));
    }
  }
}

void ModelCall::FindParts(const ClientState& client) {
  for (const Array& input : inputs_) input_parts_.push_back(client.FindPart(input.bytes()));
  for (const Array& output : outputs_) output_parts_.push_back(client.FindPart(output.bytes()));
}

bool ModelCall::IsJoinable() const {
  const auto is_shared = [](const absl::optional<client::RegionPart>& part) {
    return part.has_value();
  };
  return !mlp_ && !IsOnGpu() && std::none_of(input_parts_.begin(), input_parts_.end(), is_shared) &&
         std::none_of(output_parts_.begin(), output_parts_.end(), is_shared) && CheckInputs().ok();
}

bool ModelCall::IsOnGpu() const {
  const auto is_on_gpu = [](const Array& array) { return array.is_on_gpu(); };
  return std::any_of(inputs_.begin(), inputs_.end(), is_on_gpu) ||
         std::any_of(outputs_.begin(), outputs_.end(), is_on_gpu);
}

client::InputTensor ModelCall::In(size_t input) const {
  const Array& array = inputs_[input];
  if (input_parts_[input]) return {array.dtype(), array.shape(), *input_parts_[input]};
  return client::TensorView{array.dtype(), array.shape(), array.bytes()};
}

client::OutputTensor ModelCall::Out(size_t output) const {
  if (output_parts_[output]) return *output_parts_[output];
  return outputs_[output].bytes();
}

void ModelCall::Run(ClientState& client, const CallOptions& options, CallEnd* end) {
  if (!IsOnGpu()) return Make(client.client, options, end);
  const absl::Time deadline = client.DeadlineOf(options, NumBytes());
  RunOnGpu(client, options, deadline, end);
  if (!IsOfUnknownRegion(end->status)) return;
  // The server has dropped the regions, for example because it is another process by now.
  ForgetGpuMemory(client);
  RunOnGpu(client, options, deadline, end);
}

void ModelCall::Make(const Client& client, const CallOptions& options, CallEnd* end) const {
  switch (operation_) {
    case Operation::kForward:
      end->status = client.ForwardInto(In(0), In(1), Out(0), options);
      return;
    case Operation::kBackward:
      end->status = client.BackwardInto(In(0), In(1), In(2), {Out(0), Out(1), Out(2)}, options);
      return;
    case Operation::kMlpForward:
      return EndInto(mlp_->ForwardInto(In(0), Out(0), options), end);
    case Operation::kMlpBackward:
      return EndInto(mlp_->BackwardInto(In(0), In(1), Out(0), options), end);
    case Operation::kMlpGradients:
      if (has_outputs_) {
        return EndInto(mlp_->GradientsInto(In(0), In(1), {Out(0), Out(1), Out(2), Out(3)}, options),
                       end);
      }
      return EndWith(mlp_->Gradients(View(0), View(1), options), end, &client::MlpGradients::dx,
                     &client::MlpGradients::d_gate_proj, &client::MlpGradients::d_up_proj,
                     &client::MlpGradients::d_down_proj);
  }
}

absl::Status ModelCall::Start(ClientState& state, const CallOptions& options,
                              const std::shared_ptr<Completion>& completion, size_t call) {
  CallEnd* const end = &completion->end(call);
  CallOptions own = options;
  absl::Status status;
  if (IsOnGpu()) {
    const absl::Time deadline = state.DeadlineOf(options, NumBytes());
    status = ShareGpuMemory(state, deadline);
    own = Until(deadline, options);
  }
  if (status.ok()) {
    try {
      StartSending(state.client, own, completion, end);
      return absl::OkStatus();
    } catch (const std::bad_alloc&) {
      status = absl::ResourceExhaustedError("no memory to start the call");
    }
  }
  end->status = status;
  completion->EndOne();
  return status;
}

void ModelCall::StartSending(const Client& client, const CallOptions& options,
                             const std::shared_ptr<Completion>& completion, CallEnd* end) const {
  const CallScope scope(&end->cancellation, IsOnGpu() ? &end->notes : nullptr);
  const auto end_with = [completion, end](absl::Status status) {
    end->status = std::move(status);
    completion->EndOne();
  };
  const auto end_mlp_with = [completion, end](absl::StatusOr<std::string> weights) {
    EndInto(std::move(weights), end);
    completion->EndOne();
  };
  switch (operation_) {
    case Operation::kForward:
      return client.ForwardIntoAsync(In(0), In(1), Out(0), end_with, options);
    case Operation::kBackward:
      return client.BackwardIntoAsync(In(0), In(1), In(2), {Out(0), Out(1), Out(2)}, end_with,
                                      options);
    case Operation::kMlpForward:
      return mlp_->ForwardIntoAsync(In(0), Out(0), end_mlp_with, options);
    case Operation::kMlpBackward:
      return mlp_->BackwardIntoAsync(In(0), In(1), Out(0), end_mlp_with, options);
    case Operation::kMlpGradients:
      return end_with(absl::UnimplementedError("gradients have no form that does not block"));
  }
}

int64_t ModelCall::NumBytes() const {
  size_t num_bytes = 0;
  for (const Array& input : inputs_) num_bytes += input.bytes().size();
  for (const Array& output : outputs_) num_bytes += output.bytes().size();
  return static_cast<int64_t>(num_bytes);
}

client::TensorView ModelCall::View(size_t input) const {
  const Array& array = inputs_[input];
  return {array.dtype(), array.shape(), array.bytes()};
}

py::object ModelCall::TakeResult(CallEnd* end) {
  if (!has_outputs_) {
    py::tuple results(end->tensors.size());
    for (size_t i = 0; i < end->tensors.size(); ++i) {
      results[i] = inputs_[0].Wrap(std::move(end->tensors[i]));
    }
    return GetNames().types.attr(NamesOf(operation_).tuple)(*results);
  }
  return result_;
}

}  // namespace swiglu::python
