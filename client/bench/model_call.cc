// SPDX-License-Identifier: Apache-2.0
//
// The library has a method for each kind of model.
#include "client/bench/model_call.h"

#include "swiglu/client_mlp.h"

namespace swiglu::bench {

absl::Status CallModel(const client::Client& client, const Model& model, size_t layer,
                       absl::Span<const client::InputTensor> inputs,
                       absl::Span<const client::OutputTensor> outputs,
                       const client::CallOptions& options) {
  if (model.is_mlp()) {
    const client::Mlp mlp = client.Mlp(model.mlp, model.first_layer + static_cast<int>(layer));
    if (inputs.size() == 1) return mlp.ForwardInto(inputs[0], outputs[0], options).status();
    return mlp.BackwardInto(inputs[0], inputs[1], outputs[0], options).status();
  }
  if (inputs.size() == 2) return client.ForwardInto(inputs[0], inputs[1], outputs[0], options);
  return client.BackwardInto(inputs[0], inputs[1], inputs[2], {outputs[0], outputs[1], outputs[2]},
                             options);
}

client::Future<absl::Status> StartModel(const client::Client& client, const Model& model,
                                        absl::Span<const client::InputTensor> inputs,
                                        absl::Span<const client::OutputTensor> outputs,
                                        const client::CallOptions& options) {
  if (model.inputs.size() == 2) {
    return client.ForwardIntoAsync(inputs[0], inputs[1], outputs[0], options);
  }
  return client.BackwardIntoAsync(inputs[0], inputs[1], inputs[2],
                                  {outputs[0], outputs[1], outputs[2]}, options);
}

}  // namespace swiglu::bench
