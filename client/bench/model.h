// SPDX-License-Identifier: Apache-2.0
//
// The six models as a load sees them: what tensors a request and its answer have.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "swiglu/tensor.h"

namespace swiglu::bench {

struct Model {
  absl::string_view name;
  client::Dtype dtype;
  std::vector<absl::string_view> inputs;
  std::vector<absl::string_view> outputs;
};

// All models. They live for ever.
absl::Span<const Model> AllModels();

// The model of that name, or nullptr.
const Model* FindModel(absl::string_view name);

// Elements of each tensor of a request whose inputs have `request_bytes` in all, rounded down.
int64_t NumElements(const Model& model, int64_t request_bytes);

// Bytes of one tensor, of a request's inputs and of an answer's outputs.
int64_t TensorBytes(const Model& model, int64_t num_elements);
int64_t InputBytes(const Model& model, int64_t num_elements);
int64_t OutputBytes(const Model& model, int64_t num_elements);

}  // namespace swiglu::bench
