// SPDX-License-Identifier: Apache-2.0
//
// A call of any model by the client library, in two forms.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
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

// The future of a call of any model.
class ModelFuture {
 public:
  // A future without a call.
  ModelFuture() = default;
  explicit ModelFuture(client::Future<absl::Status> future) : future_(std::move(future)) {}
  // Of an MLP, whose calls also tell the weights.
  explicit ModelFuture(client::Future<absl::StatusOr<std::string>> future)
      : future_(std::move(future)) {}

  // Waits, and returns the error of the call. Call it once.
  absl::Status Get();

 private:
  std::variant<client::Future<absl::Status>, client::Future<absl::StatusOr<std::string>>> future_;
};

// The same as CallModel, but does not block.
ModelFuture StartModel(const client::Client& client, const Model& model, size_t layer,
                       absl::Span<const client::InputTensor> inputs,
                       absl::Span<const client::OutputTensor> outputs,
                       const client::CallOptions& options = {});

}  // namespace swiglu::bench
