// SPDX-License-Identifier: Apache-2.0
//
// The contract of SwiGLU forward and backward for 16-bit types, evaluated in float64 with the
// intermediate roundings that the contract asks for, and the comparison of results with it.
// Independent of the kernels.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/demo/narrow_float.h"

namespace swiglu::demo {

// What a comparison of results with the contract has found. A value "differs" if it is not the one
// that float64 gives, and is "wrong" if it differs by more than the contract allows.
struct Verdict {
  int64_t num_values = 0;
  int64_t num_differing = 0;
  int64_t num_wrong = 0;
  std::string first_wrong;  // the first wrong value, in words

  bool ok() const { return num_values > 0 && num_wrong == 0; }
};

// The contract for one dtype. f depends on e alone, so that all of its 65,536 values are computed
// ahead.
class Contract {
 public:
  explicit Contract(NarrowFloat format);

  // SiLU of the pattern `e`: sigmoid(e) * e, rounded to the format.
  uint16_t Silu(uint16_t e) const { return silu_[e]; }

  // The gradient with respect to e: dw * g rounded to the format, then times sigmoid(e) * (1 + e *
  // (1 - sigmoid(e))).
  uint16_t GateGradient(uint16_t dw, uint16_t e, uint16_t g) const;

  // Adds h = f * g of one element to `verdict`: right for f or one of its neighbours, an ulp apart,
  // exactly rounded.
  void CheckForward(uint16_t e, uint16_t g, uint16_t h, Verdict& verdict) const;

  // Adds h, df = dw * f and de of one element: h and df right for the same f or neighbour of f, de
  // within one ulp.
  void CheckBackward(uint16_t dw, uint16_t e, uint16_t g, uint16_t h, uint16_t df, uint16_t de,
                     Verdict& verdict) const;

 private:
  uint16_t Product(uint16_t a, uint16_t b) const;
  bool Same(uint16_t a, uint16_t b) const;
  bool WithinOneUlp(uint16_t a, uint16_t b) const;
  std::vector<uint16_t> NeighboursOf(uint16_t f) const;

  const NarrowFloat format_;
  std::vector<double> wide_;     // the value of each pattern
  std::vector<double> sigmoid_;  // sigmoid of each pattern's value
  std::vector<uint16_t> silu_;   // f of each pattern
};

}  // namespace swiglu::demo
