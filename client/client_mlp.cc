// SPDX-License-Identifier: Apache-2.0
//
// Calls of the models of MLPs.
#include "swiglu/client_mlp.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/client_impl.h"
#include "client/infer_call.h"
#include "proto/inference.pb.h"

namespace swiglu::client {
namespace {

InferCall MlpCall(const std::string& model, std::vector<InferCall::Input> inputs,
                  std::vector<InferCall::Output> outputs = {}) {
  return {
      .model = model, .is_mlp = true, .inputs = std::move(inputs), .outputs = std::move(outputs)};
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

absl::StatusOr<std::string> Mlp::ForwardInto(const InputTensor& x, const OutputTensor& y,
                                             const CallOptions& options) const {
  return impl_->Infer(MlpCall(forward_model_, {{"x", &x}}, {{"y", &y}}), options);
}

absl::StatusOr<std::string> Mlp::BackwardInto(const InputTensor& x, const InputTensor& dy,
                                              const OutputTensor& dx,
                                              const CallOptions& options) const {
  return impl_->Infer(MlpCall(backward_model_, {{"x", &x}, {"dy", &dy}}, {{"dx", &dx}}), options);
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
  return impl_->Infer(MlpCall(backward_model_, {{"x", &x}, {"dy", &dy}},
                              {{"dx", &outputs.dx},
                               {"d_gate_proj", &outputs.d_gate_proj, OutputForm::kUpMatrix},
                               {"d_up_proj", &outputs.d_up_proj, OutputForm::kUpMatrix},
                               {"d_down_proj", &outputs.d_down_proj, OutputForm::kDownMatrix}}),
                      options);
}

absl::StatusOr<int64_t> Mlp::AskForIntermediateSize(const CallOptions& options) const {
  inference::ModelMetadataRequest request;
  request.set_name(backward_model_);
  const auto response =
      impl_->Control<inference::ModelMetadataResponse>("ModelMetadata", request, options);
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
  const InputTensor x_input(x);
  return CheckInputs(MlpCall(forward_model_, {{"x", &x_input}}));
}

absl::Status Mlp::CheckBackward(const TensorView& x, const TensorView& dy) const {
  const InputTensor x_input(x), dy_input(dy);
  return CheckInputs(MlpCall(backward_model_, {{"x", &x_input}, {"dy", &dy_input}}));
}

}  // namespace swiglu::client
