// SPDX-License-Identifier: Apache-2.0
//
// The tensors that a load sends: made once for each size, and sent over and over.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/types/span.h"
#include "client/bench/model.h"
#include "client/infer_codec.h"

namespace swiglu::bench {

// The inputs of requests of one size, of rank 1: distinct tensors of finite numbers whose magnitude
// is from 0.5 to 1. Move-only; reading is thread-safe.
class RequestData {
 public:
  // REQUIRES: `model` outlives this; `num_elements` is 1 or more.
  RequestData(const Model* model, int64_t num_elements);

  const Model& model() const { return *model_; }
  int64_t num_elements() const { return num_elements_; }
  int64_t input_bytes() const { return InputBytes(*model_, num_elements_); }
  int64_t output_bytes() const { return OutputBytes(*model_, num_elements_); }

  // The bytes of input k.
  absl::Span<const std::byte> input(size_t k) const;

  // The request as an inference that borrows this data, without outputs.
  client::Inference ToInference() const;

 private:
  const Model* model_;
  int64_t num_elements_;
  std::unique_ptr<std::byte[]> bytes_;  // the inputs, one after the other
};

}  // namespace swiglu::bench
