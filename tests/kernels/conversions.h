// SPDX-License-Identifier: Apache-2.0
//
// The conversions of kernels/cpu/narrow_float-inl.h over arrays, so that plain tests can reach
// them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "swiglu/dtype.h"

namespace swiglu::kernels {

// Arrays have a multiple of this many elements: whole vectors on any instruction set.
inline constexpr size_t kConversionBlock = 64;

// The conversions of one 16-bit type on one instruction set. Each works on `num_elements` elements.
struct Conversions {
  void (*widen)(const uint16_t* lanes, float* values, size_t num_elements);
  void (*narrow)(const float* values, uint16_t* lanes, size_t num_elements);
  void (*round)(const float* values, float* rounded, size_t num_elements);
  void (*product)(const float* a, const float* b, float* products, size_t num_elements);
};

// Those of the instruction set that Highway has chosen. REQUIRES: dtype is FP16 or BF16.
Conversions ConversionsOf(Dtype dtype);

}  // namespace swiglu::kernels
