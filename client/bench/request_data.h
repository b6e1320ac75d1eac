// SPDX-License-Identifier: Apache-2.0
//
// The tensors that a load sends. They are made once for each size, and sent again and again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/types/span.h"
#include "client/bench/model.h"
#include "client/infer_codec.h"

namespace swiglu::bench {

// The inputs of the requests of one size. They are distinct tensors, of rank 1 or with an MLP's
// rows. Their numbers are finite and have magnitudes from 0.5 to 1. Move-only. Threads may read
// them at the same time.
class RequestData {
 public:
  // REQUIRES: `model` outlives this object; `num_elements` is 1 or more, and whole rows of an MLP.
  RequestData(const Model* model, int64_t num_elements);

  const Model& model() const { return *model_; }
  int64_t num_elements() const { return num_elements_; }
  int64_t input_bytes() const { return InputBytes(*model_, num_elements_); }
  int64_t output_bytes() const { return OutputBytes(*model_, num_elements_); }

  client::Shape shape() const { return ShapeOf(*model_, num_elements_); }

  // The bytes of input k.
  absl::Span<const std::byte> input(size_t k) const;

  // The request to `model.names[layer]` as an inference without outputs. It borrows this object's
  // data.
  client::Inference ToInference(size_t layer) const;

 private:
  const Model* model_;
  int64_t num_elements_;
  std::unique_ptr<std::byte[]> bytes_;  // the inputs, one after the other
};

}  // namespace swiglu::bench
