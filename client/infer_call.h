// SPDX-License-Identifier: Apache-2.0
//
// A call of a model, as a caller makes it: named tensors with dtypes and shapes of their own. The
// checks here come before the call is encoded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "client/infer_codec.h"
#include "swiglu/tensor_place.h"

namespace swiglu::client {

// The dtype and the shape of an output: those of the inputs, or FP32 and those of a matrix of an
// MLP with the hidden size H and the intermediate size I.
enum class OutputForm {
  kAsInputs,
  kUpMatrix,    // [I, H], of gate and up
  kDownMatrix,  // [H, I]
};

// Borrows the tensors and their names.
struct InferCall {
  struct Input {
    absl::string_view name;
    const InputTensor* tensor;
  };
  struct Output {
    absl::string_view name;
    const OutputTensor* tensor;
    OutputForm form = OutputForm::kAsInputs;
  };

  // The input with whose dtype and shape those of the others are compared.
  const Input& reference() const { return inputs[reference_input]; }

  std::string model;
  size_t reference_input = 0;
  // Whether the model is that of an MLP: it has weights, and its tensors have rows.
  bool is_mlp = false;
  std::vector<Input> inputs;
  std::vector<Output> outputs;
};

// A call of an element-wise model. `op` is forward or backward. Its dtype and shape are those of
// the gate, the last input but one: as the server has it.
InferCall ElementwiseCall(absl::string_view op, std::vector<InferCall::Input> inputs,
                          std::vector<InferCall::Output> outputs);

// OK if the service supports the dtype, all inputs have one dtype and one shape, their sizes fit
// the shape, and parts of regions lie inside their regions. INVALID_ARGUMENT, with the text that
// the server would send, if not.
absl::Status CheckInputs(const InferCall& call);

// OK if each output has as many bytes as each input, gradients of weights have an equal number of
// FP32 rows of the hidden size, and parts of regions lie inside their regions. REQUIRES: the inputs
// are checked.
absl::Status CheckOutputs(const InferCall& call);

// Whether a tensor of the call is in a region.
bool UsesRegions(const InferCall& call);

// The call for the codec. REQUIRES: the call is checked, and outlives the inference.
Inference ToInference(const InferCall& call);

}  // namespace swiglu::client
