// SPDX-License-Identifier: Apache-2.0
//
// Calls of the models of MLPs, in their three forms.
#include "swiglu/client_mlp.h"

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

ResultCall<MlpForwardResult> NewMlpForward(const Mlp& mlp, const TensorView& x) {
  ResultCall<MlpForwardResult> call(MlpCall(mlp.forward_model(), {{"x", x}}));
  call.AddOutput("y", &call.result.y);
  return call;
}

ResultCall<MlpBackwardResult> NewMlpBackward(const Mlp& mlp, const TensorView& x,
                                             const TensorView& dy) {
  ResultCall<MlpBackwardResult> call(MlpCall(mlp.backward_model(), {{"x", x}, {"dy", dy}}));
  call.AddOutput("dx", &call.result.dx);
  return call;
}

InferCall GradientsCall(const Mlp& mlp, const InputTensor& x, const InputTensor& dy,
                        const MlpGradientOutputs& outputs) {
  return MlpCall(mlp.backward_model(), {{"x", x}, {"dy", dy}},
                 {{"dx", outputs.dx},
                  {"d_gate_proj", outputs.d_gate_proj, OutputForm::kUpMatrix},
                  {"d_up_proj", outputs.d_up_proj, OutputForm::kUpMatrix},
                  {"d_down_proj", outputs.d_down_proj, OutputForm::kDownMatrix}});
}

}  // namespace

absl::StatusOr<MlpForwardResult> Mlp::Forward(const TensorView& x,
                                              const CallOptions& options) const {
  return RunCall(target_, NewMlpForward(*this, x), options);
}

Future<absl::StatusOr<MlpForwardResult>> Mlp::ForwardAsync(const TensorView& x,
                                                           const CallOptions& options) const {
  return MakeFuture<absl::StatusOr<MlpForwardResult>>(target_, NewMlpForward(*this, x), options);
}

void Mlp::ForwardAsync(const TensorView& x,
                       Client::Callback<absl::StatusOr<MlpForwardResult>> callback,
                       const CallOptions& options) const {
  StartCall(target_, NewMlpForward(*this, x), options, nullptr, std::move(callback));
}

absl::StatusOr<MlpBackwardResult> Mlp::Backward(const TensorView& x, const TensorView& dy,
                                                const CallOptions& options) const {
  return RunCall(target_, NewMlpBackward(*this, x, dy), options);
}

Future<absl::StatusOr<MlpBackwardResult>> Mlp::BackwardAsync(const TensorView& x,
                                                             const TensorView& dy,
                                                             const CallOptions& options) const {
  return MakeFuture<absl::StatusOr<MlpBackwardResult>>(target_, NewMlpBackward(*this, x, dy),
                                                       options);
}

void Mlp::BackwardAsync(const TensorView& x, const TensorView& dy,
                        Client::Callback<absl::StatusOr<MlpBackwardResult>> callback,
                        const CallOptions& options) const {
  StartCall(target_, NewMlpBackward(*this, x, dy), options, nullptr, std::move(callback));
}

absl::StatusOr<std::string> Mlp::ForwardInto(const InputTensor& x, const OutputTensor& y,
                                             const CallOptions& options) const {
  return RunCall(target_, MlpCall(forward_model_, {{"x", x}}, {{"y", y}}), options);
}

Future<absl::StatusOr<std::string>> Mlp::ForwardIntoAsync(const InputTensor& x,
                                                          const OutputTensor& y,
                                                          const CallOptions& options) const {
  return MakeFuture<absl::StatusOr<std::string>>(
      target_, MlpCall(forward_model_, {{"x", x}}, {{"y", y}}), options);
}

void Mlp::ForwardIntoAsync(const InputTensor& x, const OutputTensor& y,
                           Client::Callback<absl::StatusOr<std::string>> callback,
                           const CallOptions& options) const {
  StartCall(target_, MlpCall(forward_model_, {{"x", x}}, {{"y", y}}), options, nullptr,
            std::move(callback));
}

absl::StatusOr<std::string> Mlp::BackwardInto(const InputTensor& x, const InputTensor& dy,
                                              const OutputTensor& dx,
                                              const CallOptions& options) const {
  return RunCall(target_, MlpCall(backward_model_, {{"x", x}, {"dy", dy}}, {{"dx", dx}}), options);
}

Future<absl::StatusOr<std::string>> Mlp::BackwardIntoAsync(const InputTensor& x,
                                                           const InputTensor& dy,
                                                           const OutputTensor& dx,
                                                           const CallOptions& options) const {
  return MakeFuture<absl::StatusOr<std::string>>(
      target_, MlpCall(backward_model_, {{"x", x}, {"dy", dy}}, {{"dx", dx}}), options);
}

void Mlp::BackwardIntoAsync(const InputTensor& x, const InputTensor& dy, const OutputTensor& dx,
                            Client::Callback<absl::StatusOr<std::string>> callback,
                            const CallOptions& options) const {
  StartCall(target_, MlpCall(backward_model_, {{"x", x}, {"dy", dy}}, {{"dx", dx}}), options,
            nullptr, std::move(callback));
}

absl::StatusOr<MlpGradients> Mlp::Gradients(const TensorView& x, const TensorView& dy,
                                            const CallOptions& options) const {
  ResultCall<MlpGradients> call(MlpCall(backward_model_, {{"x", x}, {"dy", dy}}));
  if (!call.status.ok()) return std::move(call.status);
  const absl::StatusOr<int64_t> intermediate = AskForIntermediateSize(options);
  if (!intermediate.ok()) return intermediate.status();
  const int64_t hidden = x.shape.back();
  MlpGradients& result = call.result;
  call.AddOutput("dx", &result.dx);
  call.AddGradient("d_gate_proj", {*intermediate, hidden}, OutputForm::kUpMatrix,
                   &result.d_gate_proj);
  call.AddGradient("d_up_proj", {*intermediate, hidden}, OutputForm::kUpMatrix, &result.d_up_proj);
  call.AddGradient("d_down_proj", {hidden, *intermediate}, OutputForm::kDownMatrix,
                   &result.d_down_proj);
  return RunCall(target_, std::move(call), options);
}

absl::StatusOr<std::string> Mlp::GradientsInto(const InputTensor& x, const InputTensor& dy,
                                               const MlpGradientOutputs& outputs,
                                               const CallOptions& options) const {
  return RunCall(target_, GradientsCall(*this, x, dy, outputs), options);
}

Future<absl::StatusOr<std::string>> Mlp::GradientsIntoAsync(const InputTensor& x,
                                                            const InputTensor& dy,
                                                            const MlpGradientOutputs& outputs,
                                                            const CallOptions& options) const {
  return MakeFuture<absl::StatusOr<std::string>>(target_, GradientsCall(*this, x, dy, outputs),
                                                 options);
}

void Mlp::GradientsIntoAsync(const InputTensor& x, const InputTensor& dy,
                             const MlpGradientOutputs& outputs,
                             Client::Callback<absl::StatusOr<std::string>> callback,
                             const CallOptions& options) const {
  StartCall(target_, GradientsCall(*this, x, dy, outputs), options, nullptr, std::move(callback));
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
