// SPDX-License-Identifier: Apache-2.0
//
// The arithmetic of chunks. See the header.
#include "server/inference/chunk_plan.h"

#include <algorithm>

#include "server/core/slab.h"

namespace swiglu::server {

ChunkPlan PlanChunks(const Model& model, int64_t num_elements, int64_t max_batch_bytes) {
  const int64_t element_bytes = ElementBytes(model.dtype);
  const int64_t alignment = static_cast<int64_t>(kSlabAlignment) / element_bytes;
  const int64_t most =
      max_batch_bytes / (element_bytes * static_cast<int64_t>(model.inputs.size()));
  ChunkPlan plan;
  plan.chunk_elements = std::max(most / alignment, int64_t{1}) * alignment;
  plan.num_chunks = std::max<int64_t>((num_elements - 1) / plan.chunk_elements + 1, 1);
  plan.last_elements = num_elements - (plan.num_chunks - 1) * plan.chunk_elements;
  return plan;
}

int NumSlots(const Model& model, bool takes_readers) {
  // There are never more outputs than inputs.
  return static_cast<int>(takes_readers ? model.outputs.size() : model.inputs.size());
}

size_t SlotBytes(const Model& model, int64_t num_elements) {
  const auto bytes = static_cast<size_t>(num_elements * ElementBytes(model.dtype));
  return (bytes + kSlabAlignment - 1) / kSlabAlignment * kSlabAlignment;
}

}  // namespace swiglu::server
