// SPDX-License-Identifier: Apache-2.0
//
// The arithmetic of chunks. See the header.
#include "server/inference/chunk_plan.h"

#include <algorithm>

#include "server/core/slab.h"

namespace swiglu::server {
namespace {

size_t Aligned(int64_t size_bytes) {
  return (static_cast<size_t>(size_bytes) + kSlabAlignment - 1) / kSlabAlignment * kSlabAlignment;
}

}  // namespace

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

SlotLayout PlanSlots(const Model& model, const OutputSet& computed, bool takes_readers,
                     const std::array<std::byte*, kMaxTensors>& inputs,
                     const std::array<std::byte*, kMaxOutputs>& outputs) {
  SlotLayout layout;
  for (size_t k = 0; k < model.inputs.size(); ++k) {
    const bool is_needed = (inputs[k] == nullptr && !takes_readers) ||
                           (k < model.outputs.size() && computed[k] && outputs[k] == nullptr);
    if (is_needed) layout.slots[k] = static_cast<int8_t>(layout.num_slots++);
  }
  for (size_t g = 0; g < model.gradients.size(); ++g) {
    const auto number = static_cast<size_t>(model.GradientNumber(g));
    if (!computed[number] || outputs[number] != nullptr) continue;
    layout.gradients[g] = layout.gradient_bytes;
    layout.gradient_bytes += static_cast<int64_t>(Aligned(model.gradients[g].size_bytes()));
  }
  return layout;
}

size_t SlotBytes(const Model& model, int64_t num_elements) {
  return Aligned(num_elements * ElementBytes(model.dtype));
}

size_t ChunkSlabBytes(const Model& model, const SlotLayout& slots, int64_t num_elements) {
  return SlotBytes(model, num_elements) * static_cast<size_t>(slots.num_slots) +
         static_cast<size_t>(slots.gradient_bytes);
}

}  // namespace swiglu::server
