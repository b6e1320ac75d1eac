// SPDX-License-Identifier: Apache-2.0
//
// Parts of an inference.
#include "swiglu/inference.h"

#include <algorithm>

namespace swiglu::client {

int64_t Inference::tensor_bytes() const {
  const Input& input = inputs.front();
  return input.part ? input.part->size_bytes : static_cast<int64_t>(input.bytes.size());
}

bool Inference::uses_regions() const {
  const auto is_in_region = [](const auto& tensor) { return tensor.part.has_value(); };
  return std::any_of(inputs.begin(), inputs.end(), is_in_region) ||
         std::any_of(outputs.begin(), outputs.end(), is_in_region);
}

bool Inference::overwrites_inputs() const {
  return std::any_of(outputs.begin(), outputs.end(), [&](const Output& output) {
    return output.part && std::any_of(inputs.begin(), inputs.end(), [&](const Input& input) {
             return input.part && input.part->region == output.part->region &&
                    input.part->offset < output.part->offset + output.part->size_bytes &&
                    output.part->offset < input.part->offset + input.part->size_bytes;
           });
  });
}

bool Inference::has_gradients() const {
  return std::any_of(outputs.begin(), outputs.end(),
                     [](const Output& output) { return output.gradient_shape.has_value(); });
}

Inference Inference::Part(int64_t first, int64_t count) const {
  const auto offset = static_cast<size_t>(first * ElementBytes(dtype));
  const auto size = static_cast<size_t>(count * ElementBytes(dtype));
  Inference part{.model = model,
                 .dtype = dtype,
                 .shape = {count},
                 .row_elements = row_elements,
                 .inputs = {},
                 .outputs = {}};
  if (is_mlp()) part.shape = {count / row_elements, row_elements};
  const auto cut = [&](auto tensor) {
    if (tensor.part) {
      tensor.part->offset += first * ElementBytes(dtype);
      tensor.part->size_bytes = count * ElementBytes(dtype);
    } else {
      tensor.bytes = tensor.bytes.subspan(offset, size);
    }
    return tensor;
  };
  for (const Input& input : inputs) part.inputs.push_back(cut(input));
  for (const Output& output : outputs) part.outputs.push_back(cut(output));
  return part;
}

}  // namespace swiglu::client
