// SPDX-License-Identifier: Apache-2.0
//
// The arithmetic of chunks. See the header.
#include "server/inference/chunk_plan.h"

#include <algorithm>

#include "server/core/slab.h"

namespace swiglu::server {

ChunkPlan PlanChunks(const Model& model, int64_t num_elements, int64_t max_batch_bytes) {
  const int64_t element_bytes = ElementBytes(model.dtype);
  const int64_t cut_elements = CutElements(model);
  const int64_t most =
      max_batch_bytes / (element_bytes * static_cast<int64_t>(model.inputs.size()));
  ChunkPlan plan;
  plan.chunk_elements = std::max(most / cut_elements, int64_t{1}) * cut_elements;
  plan.num_chunks = std::max<int64_t>((num_elements - 1) / plan.chunk_elements + 1, 1);
  plan.last_elements = num_elements - (plan.num_chunks - 1) * plan.chunk_elements;
  return plan;
}

SlotLayout PlanSlots(const Model& model, bool takes_readers,
                     const std::array<std::byte*, kMaxTensors>& inputs,
                     const std::array<std::byte*, kMaxTensors>& outputs) {
  SlotLayout layout;
  for (size_t k = 0; k < model.inputs.size(); ++k) {
    const bool is_needed = (inputs[k] == nullptr && !takes_readers) ||
                           (outputs[k] == nullptr && k < model.outputs.size());
    if (is_needed) layout.slots[k] = static_cast<int8_t>(layout.num_slots++);
  }
  return layout;
}

size_t SlotBytes(const Model& model, int64_t num_elements) {
  const auto bytes = static_cast<size_t>(num_elements * ElementBytes(model.dtype));
  return (bytes + kSlabAlignment - 1) / kSlabAlignment * kSlabAlignment;
}

}  // namespace swiglu::server
