// SPDX-License-Identifier: Apache-2.0
//
// Calls of the models of MLPs.
#include "swiglu/client_mlp.h"

#include <string>
#include <utility>
#include <vector>

#include "client/client_impl.h"
#include "client/infer_call.h"

namespace swiglu::client {
namespace {

InferCall MlpCall(const std::string& model, std::vector<InferCall::Input> inputs,
                  std::vector<InferCall::Output> outputs = {}) {
  return {
      .model = model, .is_mlp = true, .inputs = std::move(inputs), .outputs = std::move(outputs)};
}

}  // namespace

absl::StatusOr<MlpForwardResult> Mlp::Forward(const TensorView& x,
                                              const CallOptions& options) const {
  absl::Status status = CheckForward(x);
  MlpForwardResult result;
  if (status.ok()) status = MakeTensor("y", x, &result.y);
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
  if (status.ok()) status = MakeTensor("dx", x, &result.dx);
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

absl::Status Mlp::CheckForward(const TensorView& x) const {
  const InputTensor x_input(x);
  return CheckInputs(MlpCall(forward_model_, {{"x", &x_input}}));
}

absl::Status Mlp::CheckBackward(const TensorView& x, const TensorView& dy) const {
  const InputTensor x_input(x), dy_input(dy);
  return CheckInputs(MlpCall(backward_model_, {{"x", &x_input}, {"dy", &dy_input}}));
}

}  // namespace swiglu::client
