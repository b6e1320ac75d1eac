// SPDX-License-Identifier: Apache-2.0
//
// Calls of the models of MLPs.
#include "swiglu/client_mlp.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/client_calls.h"
#include "client/infer_call.h"
#include "proto/inference.pb.h"

namespace swiglu::client {
namespace {

InferCall MlpCall(const std::string& model, const InferCall::Inputs& inputs,
                  const InferCall::Outputs& outputs = {}) {
  return {.model = model, .is_mlp = true, .inputs = inputs, .outputs = outputs};
}

// The end of a call that does not block.
template <typename T>
CallDone EndMlp(std::unique_ptr<T> result, Client::Callback<absl::StatusOr<T>> callback) {
  return [result = std::move(result),
          callback = std::move(callback)](absl::StatusOr<std::string> weights) mutable {
    if (!weights.ok()) return std::move(callback)(weights.status());
    result->weights_sha256 = *std::move(weights);
    std::move(callback)(std::move(*result));
  };
}

void StartMlpForward(const CallTarget& target, const Mlp& mlp, const TensorView& x,
                     const CallOptions& options, Cancellation* cancellation,
                     Client::Callback<absl::StatusOr<MlpForwardResult>> callback) {
  absl::Status status = mlp.CheckForward(x);
  auto result = std::make_unique<MlpForwardResult>();
  if (status.ok()) status = MakeTensor("y", x.dtype, x.shape, &result->y);
  if (!status.ok()) return std::move(callback)(std::move(status));
  const InferCall call =
      MlpCall(mlp.forward_model(), {{"x", x}}, {{"y", result->y.mutable_bytes()}});
  StartCall(target, call, options, cancellation, EndMlp(std::move(result), std::move(callback)));
}

void StartMlpBackward(const CallTarget& target, const Mlp& mlp, const TensorView& x,
                      const TensorView& dy, const CallOptions& options, Cancellation* cancellation,
                      Client::Callback<absl::StatusOr<MlpBackwardResult>> callback) {
  absl::Status status = mlp.CheckBackward(x, dy);
  auto result = std::make_unique<MlpBackwardResult>();
  if (status.ok()) status = MakeTensor("dx", x.dtype, x.shape, &result->dx);
  if (!status.ok()) return std::move(callback)(std::move(status));
  const InferCall call =
      MlpCall(mlp.backward_model(), {{"x", x}, {"dy", dy}}, {{"dx", result->dx.mutable_bytes()}});
  StartCall(target, call, options, cancellation, EndMlp(std::move(result), std::move(callback)));
}

// Room for a gradient of a matrix.
absl::Status MakeGradient(absl::string_view name, Shape shape, Tensor* tensor) {
  const absl::Status status = TensorBytes(name, Dtype::kFp32, shape).status();
  return status.ok() ? MakeTensor(name, Dtype::kFp32, std::move(shape), tensor) : status;
}

}  // namespace

absl::StatusOr<MlpForwardResult> Mlp::Forward(const TensorView& x,
                                              const CallOptions& options) const {
  absl::Status status = CheckForward(x);
  MlpForwardResult result;
  if (status.ok()) status = MakeTensor("y", x.dtype, x.shape, &result.y);
  if (!status.ok()) return status;
  absl::StatusOr<std::string> weights = ForwardInto(x, result.y.mutable_bytes(), options);
  if (!weights.ok()) return weights.status();
  result.weights_sha256 = *std::move(weights);
  return result;
}

absl::StatusOr<MlpBackwardResult> Mlp::Backward(const TensorView& x, const TensorView& dy,
                                                const CallOptions& options) const {
  absl::Status status = CheckBackward(x, dy);
  MlpBackwardResult result;
  if (status.ok()) status = MakeTensor("dx", x.dtype, x.shape, &result.dx);
  if (!status.ok()) return status;
  absl::StatusOr<std::string> weights = BackwardInto(x, dy, result.dx.mutable_bytes(), options);
  if (!weights.ok()) return weights.status();
  result.weights_sha256 = *std::move(weights);
  return result;
}

Future<absl::StatusOr<MlpForwardResult>> Mlp::ForwardAsync(const TensorView& x,
                                                           const CallOptions& options) const {
  return MakeFuture<absl::StatusOr<MlpForwardResult>>(
      [&](Cancellation* cancellation, auto callback) {
        StartMlpForward(target_, *this, x, options, cancellation, std::move(callback));
      });
}

void Mlp::ForwardAsync(const TensorView& x,
                       Client::Callback<absl::StatusOr<MlpForwardResult>> callback,
                       const CallOptions& options) const {
  StartMlpForward(target_, *this, x, options, nullptr, std::move(callback));
}

Future<absl::StatusOr<MlpBackwardResult>> Mlp::BackwardAsync(const TensorView& x,
                                                             const TensorView& dy,
                                                             const CallOptions& options) const {
  return MakeFuture<absl::StatusOr<MlpBackwardResult>>(
      [&](Cancellation* cancellation, auto callback) {
        StartMlpBackward(target_, *this, x, dy, options, cancellation, std::move(callback));
      });
}

void Mlp::BackwardAsync(const TensorView& x, const TensorView& dy,
                        Client::Callback<absl::StatusOr<MlpBackwardResult>> callback,
                        const CallOptions& options) const {
  StartMlpBackward(target_, *this, x, dy, options, nullptr, std::move(callback));
}

absl::StatusOr<std::string> Mlp::ForwardInto(const InputTensor& x, const OutputTensor& y,
                                             const CallOptions& options) const {
  return RunCall(target_, MlpCall(forward_model_, {{"x", x}}, {{"y", y}}), options);
}

absl::StatusOr<std::string> Mlp::BackwardInto(const InputTensor& x, const InputTensor& dy,
                                              const OutputTensor& dx,
                                              const CallOptions& options) const {
  return RunCall(target_, MlpCall(backward_model_, {{"x", x}, {"dy", dy}}, {{"dx", dx}}), options);
}

absl::StatusOr<MlpGradients> Mlp::Gradients(const TensorView& x, const TensorView& dy,
                                            const CallOptions& options) const {
  absl::Status status = CheckBackward(x, dy);
  if (!status.ok()) return status;
  const absl::StatusOr<int64_t> intermediate = AskForIntermediateSize(options);
  if (!intermediate.ok()) return intermediate.status();
  const Shape shape = {*intermediate, x.shape.back()};
  MlpGradients result;
  status = MakeTensor("dx", x.dtype, x.shape, &result.dx);
  if (status.ok()) status = MakeGradient("d_gate_proj", shape, &result.d_gate_proj);
  if (status.ok()) status = MakeGradient("d_up_proj", shape, &result.d_up_proj);
  if (status.ok()) status = MakeGradient("d_down_proj", {shape[1], shape[0]}, &result.d_down_proj);
  if (!status.ok()) return status;
  absl::StatusOr<std::string> weights =
      GradientsInto(x, dy,
                    {result.dx.mutable_bytes(), result.d_gate_proj.mutable_bytes(),
                     result.d_up_proj.mutable_bytes(), result.d_down_proj.mutable_bytes()},
                    options);
  if (!weights.ok()) return weights.status();
  result.weights_sha256 = *std::move(weights);
  return result;
}

absl::StatusOr<std::string> Mlp::GradientsInto(const InputTensor& x, const InputTensor& dy,
                                               const MlpGradientOutputs& outputs,
                                               const CallOptions& options) const {
  return RunCall(target_,
                 MlpCall(backward_model_, {{"x", x}, {"dy", dy}},
                         {{"dx", outputs.dx},
                          {"d_gate_proj", outputs.d_gate_proj, OutputForm::kUpMatrix},
                          {"d_up_proj", outputs.d_up_proj, OutputForm::kUpMatrix},
                          {"d_down_proj", outputs.d_down_proj, OutputForm::kDownMatrix}}),
                 options);
}

absl::StatusOr<int64_t> Mlp::AskForIntermediateSize(const CallOptions& options) const {
  inference::ModelMetadataRequest request;
  request.set_name(backward_model_);
  const auto response =
      Control<inference::ModelMetadataResponse>(target_, "ModelMetadata", request, options);
  if (!response.ok()) return response.status();
  const auto found = response->properties().find("intermediate_size");
  int64_t size = 0;
  if (found != response->properties().end() && absl::SimpleAtoi(found->second, &size) && size > 0) {
    return size;
  }
  return absl::InternalError(absl::StrCat("bad metadata of '", backward_model_,
                                          "': they do not tell the intermediate size"));
}

absl::Status Mlp::CheckForward(const TensorView& x) const {
  return CheckInputs(MlpCall(forward_model_, {{"x", x}}));
}

absl::Status Mlp::CheckBackward(const TensorView& x, const TensorView& dy) const {
  return CheckInputs(MlpCall(backward_model_, {{"x", x}, {"dy", dy}}));
}

}  // namespace swiglu::client
