// SPDX-License-Identifier: Apache-2.0
//
// Forward and Backward of the public class, in their three forms.
#include <utility>

#include "client/client_calls.h"
#include "client/infer_call.h"
#include "swiglu/client.h"

namespace swiglu::client {
namespace {

// `Input` is a TensorView or an InputTensor.
template <typename Input>
InferCall ForwardCall(const Input& e, const Input& g, const InferCall::Outputs& outputs) {
  return ElementwiseCall({{"e", e}, {"g", g}}, outputs);
}

template <typename Input>
InferCall BackwardCall(const Input& dw, const Input& e, const Input& g,
                       const InferCall::Outputs& outputs) {
  return ElementwiseCall({{"DW", dw}, {"e", e}, {"g", g}}, outputs);
}

// `Outputs` are BackwardOutputs or BackwardOutputTensors.
template <typename Outputs>
InferCall::Outputs Named(const Outputs& outputs) {
  return {{"h", outputs.h}, {"df", outputs.df}, {"de", outputs.de}};
}

ResultCall<Tensor> NewForward(const TensorView& e, const TensorView& g) {
  ResultCall<Tensor> call(ForwardCall(e, g, {}));
  call.AddOutput("h", &call.result);
  return call;
}

ResultCall<BackwardResult> NewBackward(const TensorView& dw, const TensorView& e,
                                       const TensorView& g) {
  ResultCall<BackwardResult> call(BackwardCall(dw, e, g, {}));
  call.AddOutput("h", &call.result.h);
  call.AddOutput("df", &call.result.df);
  call.AddOutput("de", &call.result.de);
  return call;
}

}  // namespace

absl::Status CheckForward(const TensorView& e, const TensorView& g) {
  return CheckInputs(ForwardCall(e, g, {}));
}

absl::Status CheckBackward(const TensorView& dw, const TensorView& e, const TensorView& g) {
  return CheckInputs(BackwardCall(dw, e, g, {}));
}

absl::StatusOr<Tensor> Client::Forward(const TensorView& e, const TensorView& g,
                                       const CallOptions& options) const {
  return RunCall(target_, NewForward(e, g), options);
}

Future<absl::StatusOr<Tensor>> Client::ForwardAsync(const TensorView& e, const TensorView& g,
                                                    const CallOptions& options) const {
  return MakeFuture<absl::StatusOr<Tensor>>(target_, NewForward(e, g), options);
}

void Client::ForwardAsync(const TensorView& e, const TensorView& g,
                          Callback<absl::StatusOr<Tensor>> callback,
                          const CallOptions& options) const {
  StartCall(target_, NewForward(e, g), options, nullptr, std::move(callback));
}

absl::StatusOr<BackwardResult> Client::Backward(const TensorView& dw, const TensorView& e,
                                                const TensorView& g,
                                                const CallOptions& options) const {
  return RunCall(target_, NewBackward(dw, e, g), options);
}

Future<absl::StatusOr<BackwardResult>> Client::BackwardAsync(const TensorView& dw,
                                                             const TensorView& e,
                                                             const TensorView& g,
                                                             const CallOptions& options) const {
  return MakeFuture<absl::StatusOr<BackwardResult>>(target_, NewBackward(dw, e, g), options);
}

void Client::BackwardAsync(const TensorView& dw, const TensorView& e, const TensorView& g,
                           Callback<absl::StatusOr<BackwardResult>> callback,
                           const CallOptions& options) const {
  StartCall(target_, NewBackward(dw, e, g), options, nullptr, std::move(callback));
}

absl::Status Client::ForwardInto(const TensorView& e, const TensorView& g, absl::Span<std::byte> h,
                                 const CallOptions& options) const {
  return RunCall(target_, ForwardCall(e, g, {{"h", h}}), options).status();
}

absl::Status Client::ForwardInto(const InputTensor& e, const InputTensor& g, const OutputTensor& h,
                                 const CallOptions& options) const {
  return RunCall(target_, ForwardCall(e, g, {{"h", h}}), options).status();
}

Future<absl::Status> Client::ForwardIntoAsync(const InputTensor& e, const InputTensor& g,
                                              const OutputTensor& h,
                                              const CallOptions& options) const {
  return MakeFuture<absl::Status>(target_, ForwardCall(e, g, {{"h", h}}), options);
}

void Client::ForwardIntoAsync(const InputTensor& e, const InputTensor& g, const OutputTensor& h,
                              Callback<absl::Status> callback, const CallOptions& options) const {
  StartCall(target_, ForwardCall(e, g, {{"h", h}}), options, nullptr, std::move(callback));
}

absl::Status Client::BackwardInto(const TensorView& dw, const TensorView& e, const TensorView& g,
                                  const BackwardOutputs& outputs,
                                  const CallOptions& options) const {
  return RunCall(target_, BackwardCall(dw, e, g, Named(outputs)), options).status();
}

absl::Status Client::BackwardInto(const InputTensor& dw, const InputTensor& e, const InputTensor& g,
                                  const BackwardOutputTensors& outputs,
                                  const CallOptions& options) const {
  return RunCall(target_, BackwardCall(dw, e, g, Named(outputs)), options).status();
}

Future<absl::Status> Client::BackwardIntoAsync(const InputTensor& dw, const InputTensor& e,
                                               const InputTensor& g,
                                               const BackwardOutputTensors& outputs,
                                               const CallOptions& options) const {
  return MakeFuture<absl::Status>(target_, BackwardCall(dw, e, g, Named(outputs)), options);
}

void Client::BackwardIntoAsync(const InputTensor& dw, const InputTensor& e, const InputTensor& g,
                               const BackwardOutputTensors& outputs,
                               Callback<absl::Status> callback, const CallOptions& options) const {
  StartCall(target_, BackwardCall(dw, e, g, Named(outputs)), options, nullptr, std::move(callback));
}

}  // namespace swiglu::client
