// SPDX-License-Identifier: Apache-2.0
//
// The library has a method for each kind of model.
#include "client/bench/model_call.h"

#include "swiglu/client_mlp.h"

namespace swiglu::bench {
namespace {

client::Mlp MlpOf(const client::Client& client, const Model& model, size_t layer) {
  return client.Mlp(model.mlp, model.first_layer + static_cast<int>(layer));
}

}  // namespace

absl::Status CallModel(const client::Client& client, const Model& model, size_t layer,
                       absl::Span<const client::InputTensor> inputs,
                       absl::Span<const client::OutputTensor> outputs,
                       const client::CallOptions& options) {
  if (model.is_mlp()) {
    const client::Mlp mlp = MlpOf(client, model, layer);
    if (inputs.size() == 1) return mlp.ForwardInto(inputs[0], outputs[0], options).status();
    return mlp.BackwardInto(inputs[0], inputs[1], outputs[0], options).status();
  }
  if (inputs.size() == 2) return client.ForwardInto(inputs[0], inputs[1], outputs[0], options);
  return client.BackwardInto(inputs[0], inputs[1], inputs[2], {outputs[0], outputs[1], outputs[2]},
                             options);
}

absl::Status ModelFuture::Get() {
  if (auto* const elementwise = std::get_if<client::Future<absl::Status>>(&future_)) {
    return elementwise->Get();
  }
  return std::get<client::Future<absl::StatusOr<std::string>>>(future_).Get().status();
}

ModelFuture StartModel(const client::Client& client, const Model& model, size_t layer,
                       absl::Span<const client::InputTensor> inputs,
                       absl::Span<const client::OutputTensor> outputs,
                       const client::CallOptions& options) {
  if (model.is_mlp()) {
    const client::Mlp mlp = MlpOf(client, model, layer);
    return ModelFuture(inputs.size() == 1
                           ? mlp.ForwardIntoAsync(inputs[0], outputs[0], options)
                           : mlp.BackwardIntoAsync(inputs[0], inputs[1], outputs[0], options));
  }
  return ModelFuture(inputs.size() == 2
                         ? client.ForwardIntoAsync(inputs[0], inputs[1], outputs[0], options)
                         : client.BackwardIntoAsync(inputs[0], inputs[1], inputs[2],
                                                    {outputs[0], outputs[1], outputs[2]}, options));
}

}  // namespace swiglu::bench
