// SPDX-License-Identifier: Apache-2.0
//
// The formulas of SwiGLU in float64, before any rounding: what the tests in C++ hold results
// against. Shares no code with the kernels.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

namespace swiglu::demo {

// The reference computes 1 + exp(-e) in float32, so that sigmoid is 0 where that overflows.
inline double Sigmoid(double e) {
  const double denominator = 1.0 + std::exp(-e);
  return denominator > std::numeric_limits<float>::max() ? 0.0 : 1.0 / denominator;
}

// The gradient with respect to e, of dg = dw * g rounded to the dtype and sigmoid = Sigmoid(e).
inline double GateGradient(double dg, double e, double sigmoid) {
  return dg * sigmoid * (1.0 + e * (1.0 - sigmoid));
}

// The magnitude that an error of GateGradient is measured against: its last factor cancels near e =
// -1.28.
inline double GateGradientScale(double dg, double e, double sigmoid) {
  return std::fabs(dg * sigmoid) * std::max(1.0, std::fabs(e));
}

}  // namespace swiglu::demo
