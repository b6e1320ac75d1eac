// SPDX-License-Identifier: Apache-2.0
//
// The packed weights of an MLP, and the check of pointers that packing and computing share. Private
// to the kernels. "kernels/cpu/mlp_product.h" describes panels.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <memory>

#include "swiglu/cpu_mlp.h"
#include "swiglu/dtype.h"

namespace swiglu {
namespace internal {

struct Free {
  void operator()(uint16_t* memory) const { std::free(memory); }
};

// Returns what is wrong with the first faulty tensor, or kOk.
inline MlpStatus CheckTensors(std::initializer_list<const void*> tensors) {
  for (const void* tensor : tensors) {
    if (tensor == nullptr) return MlpStatus::kNullPointer;
    if (reinterpret_cast<uintptr_t>(tensor) % sizeof(uint16_t) != 0) return MlpStatus::kMisaligned;
  }
  return MlpStatus::kOk;
}

}  // namespace internal

// Panels for the six products, all in one piece of memory.
struct CpuMlpWeights::Packed {
  Dtype dtype;
  int64_t hidden, intermediate;
  int64_t num_bytes;
  std::unique_ptr<uint16_t, internal::Free> memory;
  // x Wg^T, x Wu^T and h Wd^T.
  const uint16_t *gate, *up, *down;
  // de Wg, df Wu and dy Wd; null if packed for forward only.
  const uint16_t *gate_back = nullptr, *up_back = nullptr, *down_back = nullptr;

  // REQUIRES: all but the panels is set.
  void Pack(const MlpMatrices& matrices, MlpPacking packing);
};

}  // namespace swiglu
