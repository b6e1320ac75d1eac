// SPDX-License-Identifier: Apache-2.0
//
// A call of any model by the client library, in two forms.
#pragma once

#include <cstddef>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "client/bench/model.h"
#include "swiglu/client.h"
#include "swiglu/future.h"
#include "swiglu/tensor_place.h"

namespace swiglu::bench {

// Calls the model `model.names[layer]`, and fills the outputs. Blocks. REQUIRES: there are as many
// tensors as the model has.
absl::Status CallModel(const client::Client& client, const Model& model, size_t layer,
                       absl::Span<const client::InputTensor> inputs,
                       absl::Span<const client::OutputTensor> outputs,
                       const client::CallOptions& options = {});

// The same, but does not block. REQUIRES: the model is not that of an MLP, whose calls into given
// memory have no futures.
client::Future<absl::Status> StartModel(const client::Client& client, const Model& model,
                                        absl::Span<const client::InputTensor> inputs,
                                        absl::Span<const client::OutputTensor> outputs,
                                        const client::CallOptions& options = {});

}  // namespace swiglu::bench
