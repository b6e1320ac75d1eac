// SPDX-License-Identifier: Apache-2.0
//
// A call of a model, as a caller makes it: named tensors with dtypes and shapes of their own. The
// checks here come before the call is encoded.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "swiglu/inference.h"
#include "swiglu/tensor.h"
#include "swiglu/tensor_place.h"

namespace swiglu::client {

// The dtype and the shape of an output: those of the inputs, or FP32 and those of a matrix of an
// MLP with the hidden size H and the intermediate size I.
enum class OutputForm {
  kAsInputs,
  kUpMatrix,    // [I, H], of gate and up
  kDownMatrix,  // [H, I]
};

// Borrows the tensors, their shapes and their names.
struct InferCall {
  struct Input {
    Input(absl::string_view its_name, const TensorView& view)
        : name(its_name), dtype(view.dtype), shape(&view.shape), bytes(view.bytes) {}
    Input(absl::string_view its_name, const InputTensor& tensor)
        : name(its_name),
          dtype(tensor.dtype),
          shape(&tensor.shape),
          bytes(tensor.bytes),
          part(tensor.part ? &*tensor.part : nullptr) {}

    int64_t size_bytes() const {
      return part != nullptr ? part->size_bytes : static_cast<int64_t>(bytes.size());
    }

    absl::string_view name;
    Dtype dtype;
    const Shape* shape;
    absl::Span<const std::byte> bytes;
    const RegionPart* part = nullptr;  // nullptr if it is in ordinary memory
  };
  struct Output {
    Output(absl::string_view its_name, absl::Span<std::byte> its_bytes,
           OutputForm its_form = OutputForm::kAsInputs)
        : name(its_name), bytes(its_bytes), form(its_form) {}
    Output(absl::string_view its_name, const OutputTensor& tensor,
           OutputForm its_form = OutputForm::kAsInputs)
        : name(its_name),
          bytes(tensor.bytes),
          part(tensor.part ? &*tensor.part : nullptr),
          form(its_form) {}

    int64_t size_bytes() const {
      return part != nullptr ? part->size_bytes : static_cast<int64_t>(bytes.size());
    }

    absl::string_view name;
    absl::Span<std::byte> bytes;
    const RegionPart* part = nullptr;  // nullptr if it is in ordinary memory
    OutputForm form;
  };
  using Inputs = absl::InlinedVector<Input, 3>;
  using Outputs = absl::InlinedVector<Output, 4>;

  // The input with whose dtype and shape those of the others are compared.
  const Input& reference() const { return inputs[reference_input]; }

  absl::string_view model;
  size_t reference_input = 0;
  // Whether the model is that of an MLP: it has weights, and its tensors have rows.
  bool is_mlp = false;
  Inputs inputs;
  Outputs outputs;
};

// A call of an element-wise model: forward if it has two inputs, backward if it has three. Its
// dtype and shape are those of the gate, the last input but one: as the server has it.
InferCall ElementwiseCall(const InferCall::Inputs& inputs, const InferCall::Outputs& outputs);

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

// The bytes of all tensors of a call, those of its results too.
int64_t TotalBytes(const InferCall& call);

// The call for a connection. Borrows what the call borrows, except shapes and parts of regions.
// REQUIRES: the call is checked.
Inference ToInference(const InferCall& call);

}  // namespace swiglu::client
