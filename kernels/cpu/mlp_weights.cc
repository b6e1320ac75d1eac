// SPDX-License-Identifier: Apache-2.0
//
// Packs the weights of an MLP into panels, which "kernels/cpu/mlp_product.h" describes.
#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <utility>

#include "kernels/cpu/mlp_packed.h"
#include "kernels/cpu/mlp_product.h"
#include "swiglu/cpu_mlp.h"

namespace swiglu {
namespace {

using internal::kPanelOutputs;

bool IsMlpSize(int64_t size) { return size > 0 && size <= kMaxMlpSize && size % kMlpSizeStep == 0; }

// Memory for packed weights, or null. Large memory has huge pages where the system allows that:
// otherwise reading it once, in order, costs a page walk for every 4 KiB.
uint16_t* Allocate(size_t num_bytes) {
  constexpr size_t kHugePage = size_t{2} << 20;
  const size_t alignment = num_bytes < kHugePage ? kMlpAlignment : kHugePage;
  const size_t rounded = (num_bytes + alignment - 1) / alignment * alignment;
  void* const memory = std::aligned_alloc(alignment, rounded);
#ifdef MADV_HUGEPAGE
  if (memory != nullptr && alignment == kHugePage) (void)madvise(memory, rounded, MADV_HUGEPAGE);
#endif
  return static_cast<uint16_t*>(memory);
}

// Packs a matrix that is [num_outputs][depth], row-major: the right-hand side is its transpose.
// Packs it at `next`, moves `next` behind it and returns where it begins. Goes through a few rows
// of a panel at a time, which stay in the first cache.
const uint16_t* PackTransposed(const uint16_t* matrix, int64_t depth, int64_t num_outputs,
                               uint16_t*& next) {
  constexpr int64_t kRows = 64;
  const uint16_t* const begin = next;
  for (int64_t first = 0; first < num_outputs; first += kPanelOutputs) {
    const int64_t width = std::min(kPanelOutputs, num_outputs - first);
    for (int64_t row = 0; row < depth; row += kRows) {
      const int64_t rows = std::min(kRows, depth - row);
      std::fill_n(next, rows * kPanelOutputs, uint16_t{0});
      for (int64_t j = 0; j < width; ++j) {
        const uint16_t* const from = matrix + (first + j) * depth + row;
        for (int64_t k = 0; k < rows; ++k) next[k * kPanelOutputs + j] = from[k];
      }
      next += rows * kPanelOutputs;
    }
  }
  return begin;
}

// The same for a matrix that is [depth][num_outputs], row-major: it is the right-hand side itself.
const uint16_t* PackStraight(const uint16_t* matrix, int64_t depth, int64_t num_outputs,
                             uint16_t*& next) {
  uint16_t* const begin = next;
  for (int64_t panel = 0; panel < internal::CeilDiv(num_outputs, kPanelOutputs); ++panel) {
    internal::FillPanel(matrix, depth, num_outputs, panel, begin);
  }
  next += internal::PackedElements(depth, num_outputs);
  return begin;
}

}  // namespace

// Packs every matrix that `packing` asks for, one behind the other.
void CpuMlpWeights::Packed::Pack(const MlpMatrices& matrices, MlpPacking packing) {
  const auto* g = static_cast<const uint16_t*>(matrices.gate);
  const auto* u = static_cast<const uint16_t*>(matrices.up);
  const auto* d = static_cast<const uint16_t*>(matrices.down);
  uint16_t* next = memory.get();
  gate = PackTransposed(g, hidden, intermediate, next);
  up = PackTransposed(u, hidden, intermediate, next);
  down = PackTransposed(d, intermediate, hidden, next);
  if (packing == MlpPacking::kForward) return;
  gate_back = PackStraight(g, intermediate, hidden, next);
  up_back = PackStraight(u, intermediate, hidden, next);
  down_back = PackStraight(d, hidden, intermediate, next);
}

CpuMlpWeights::CpuMlpWeights(std::unique_ptr<Packed> packed) : packed_(std::move(packed)) {}

CpuMlpWeights::~CpuMlpWeights() = default;

MlpStatus CpuMlpWeights::Create(const MlpMatrices& matrices, MlpPacking packing,
                                std::unique_ptr<const CpuMlpWeights>& weights) {
  if (matrices.dtype != Dtype::kFp16 && matrices.dtype != Dtype::kBf16) return MlpStatus::kBadDtype;
  const int64_t h = matrices.hidden, i = matrices.intermediate;
  if (!IsMlpSize(h) || !IsMlpSize(i)) return MlpStatus::kBadSize;
  const MlpStatus status = internal::CheckTensors({matrices.gate, matrices.up, matrices.down});
  if (status != MlpStatus::kOk) return status;

  // Two products have I outputs and one has H outputs; backward has as many of each turned round.
  int64_t elements = 2 * internal::PackedElements(h, i) + internal::PackedElements(i, h);
  if (packing == MlpPacking::kForwardAndBackward) {
    elements += internal::PackedElements(h, i) + 2 * internal::PackedElements(i, h);
  }
  const int64_t num_bytes = elements * static_cast<int64_t>(sizeof(uint16_t));
  auto packed = std::make_unique<Packed>();
  packed->dtype = matrices.dtype;
  packed->hidden = h;
  packed->intermediate = i;
  packed->num_bytes = num_bytes;
  packed->memory.reset(Allocate(static_cast<size_t>(num_bytes)));
  if (packed->memory == nullptr) return MlpStatus::kOutOfMemory;
  packed->Pack(matrices, packing);
  weights.reset(new CpuMlpWeights(std::move(packed)));
  return MlpStatus::kOk;
}

int64_t CpuMlpWeights::size_bytes() const { return packed_->num_bytes; }

const char* ToString(MlpStatus status) {
  switch (status) {
    case MlpStatus::kOk:
      return "ok";
    case MlpStatus::kBadDtype:
      return "a dtype other than FP16 and BF16";
    case MlpStatus::kBadSize:
      return "hidden or intermediate size not a multiple of 8 from 8 to 1048576";
    case MlpStatus::kBadCount:
      return "negative number of tokens, or more than 16777216";
    case MlpStatus::kNullPointer:
      return "null pointer to a tensor that has elements";
    case MlpStatus::kMisaligned:
      return "tensor not aligned to its element, or workspace not to 64 bytes";
    case MlpStatus::kWorkspaceTooSmall:
      return "workspace too small";
    case MlpStatus::kNotPacked:
      return "weights not packed for backward";
    case MlpStatus::kOutOfMemory:
      return "no memory for the packed weights";
  }
  return "unknown status";
}

}  // namespace swiglu
