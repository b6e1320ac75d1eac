// SPDX-License-Identifier: Apache-2.0
//
// One run of one model, as a Connection gets it: the tensors of its inputs, and the memory for its
// outputs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/container/inlined_vector.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "swiglu/tensor.h"
#include "swiglu/tensor_place.h"

namespace swiglu::client {

// All tensors have one dtype and shape, except gradients of weights. Borrows everything but shapes
// and parts of regions.
struct Inference {
  // A tensor in a region has no `bytes`, because no message carries its bytes.
  struct Input {
    absl::string_view name;
    absl::Span<const std::byte> bytes;
    absl::optional<RegionPart> part = absl::nullopt;
  };
  // Where a tensor of the answer goes.
  struct Output {
    absl::string_view name;
    absl::Span<std::byte> bytes;
    absl::optional<RegionPart> part = absl::nullopt;
    // The shape of a gradient of weights, which is FP32. None for an output like the inputs.
    absl::optional<Shape> gradient_shape = absl::nullopt;
  };

  absl::string_view model;  // the name at the server
  // Of every tensor, except gradients of weights.
  Dtype dtype = Dtype::kFp32;
  Shape shape;
  // The last dimension of the shape, for a model of an MLP; 0 for an element-wise model.
  int64_t row_elements = 0;
  absl::InlinedVector<Input, 3> inputs;
  absl::InlinedVector<Output, 4> outputs;

  // The elements and the bytes of one tensor.
  int64_t num_elements() const { return tensor_bytes() / ElementBytes(dtype); }
  int64_t tensor_bytes() const;
  // The bytes of all inputs.
  int64_t input_bytes() const { return tensor_bytes() * static_cast<int64_t>(inputs.size()); }

  // Whether the model has weights, and a row of its tensors cannot be cut.
  bool is_mlp() const { return row_elements > 0; }
  // Whether a tensor is in a region.
  bool uses_regions() const;
  // Whether an output is in a region, over a part of an input.
  bool overwrites_inputs() const;
  // Whether gradients of weights are among the outputs. They are sums over all rows, so such an
  // inference has no parts.
  bool has_gradients() const;

  // An inference over the elements [first, first + count) of every tensor. Its shape has rank 1, or
  // is that of some rows. REQUIRES: if the model is that of an MLP, both
  // numbers are whole rows, and no output is a gradient of weights.
  Inference Part(int64_t first, int64_t count) const;
};

}  // namespace swiglu::client
