// SPDX-License-Identifier: Apache-2.0
//
// SwiGLU in float64 with the contract's intermediate roundings, plain and slow, to see that an
// executor put the right numbers in the right places. The kernels' own tests judge their last bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "server/core/model.h"
#include "tests/demo/formula.h"
#include "tests/kernels/patterns.h"

namespace swiglu::server {

// Element `index` of a tensor, read and written.
inline double LoadElement(const std::byte* data, int64_t index, Dtype dtype) {
  uint32_t bits = 0;
  std::memcpy(&bits, data + index * ElementBytes(dtype), ElementBytes(dtype));
  return kernels::Value(dtype, bits);
}
inline void StoreElement(std::byte* data, int64_t index, Dtype dtype, double value) {
  const uint32_t bits = kernels::Nearest(dtype, value);
  std::memcpy(data + index * ElementBytes(dtype), &bits, ElementBytes(dtype));
}

inline double Round(double x, Dtype dtype) {
  return kernels::Value(dtype, kernels::Nearest(dtype, x));
}

// One element's results, and for each the magnitude that an error is measured against.
struct ReferenceElement {
  double outputs[kMaxTensors];
  double scales[kMaxTensors];
};

inline ReferenceElement ReferenceForward(double e, double g, Dtype dtype) {
  const double f = Round(demo::Sigmoid(e) * e, dtype);
  const double h = Round(f * g, dtype);
  return {{h}, {std::fabs(h)}};
}

inline ReferenceElement ReferenceBackward(double dw, double e, double g, Dtype dtype) {
  const double sigmoid = demo::Sigmoid(e);
  const double f = Round(sigmoid * e, dtype);
  const double dg = Round(dw * g, dtype);
  const double h = Round(f * g, dtype);
  const double df = Round(dw * f, dtype);
  const double de = Round(demo::GateGradient(dg, e, sigmoid), dtype);
  return {{h, df, de}, {std::fabs(h), std::fabs(df), demo::GateGradientScale(dg, e, sigmoid)}};
}

// Room for approximate exponentials and their way through later roundings; far below any misplaced
// number.
inline double ReferenceTolerance(double scale, Dtype dtype) {
  const double num_ulps = dtype == Dtype::kFp32 ? 64 : 4;
  const double ulp_of_one = kernels::Value(dtype, kernels::Nearest(dtype, 1) + 1) - 1;
  const double smallest = kernels::Value(dtype, 1);
  return num_ulps * std::max(ulp_of_one * scale, smallest);
}

}  // namespace swiglu::server
