// SPDX-License-Identifier: Apache-2.0
//
// The formulas of SwiGLU in float64, element by element, with the roundings to the dtype that they
// have (swiglu/segment.h), and how far from them a result may be. Uses none of the server's code.
//
// A result is right within the bounds of the CPU and of CUDA: f = SiLU(e) and de within 1 ulp in
// FP16 and BF16, and within 64 in FP32, because the exponential of a GPU is an approximation. h and
// df are rounded products of such an f.
//
// An ulp is the distance between numbers of the dtype that are as large as the exact value. For de
// in FP32 they are as large as |dg * se| * max(1, |e|), because the last factor of de cancels near
// e = -1.28.
#pragma once

#include <cstddef>
#include <cstdint>

#include "swiglu/dtype.h"

namespace swiglu::check {

// What a result of one element should be.
struct Expected {
  double exact = 0;  // the exact value, rounded to the dtype
  double ulp = 0;    // the unit of its errors; more than 0
  // Right results are from `low` to `high`. If both are 0, a right result has the sign of `exact`.
  double low = 0;
  double high = 0;
  bool may_be_nan = false;
  bool may_be_finite = true;
  double infinity = 0;  // the number that would follow the largest one of the dtype

  bool IsRight(double found) const;

  // The distance between `found` and `exact` in ulp. Infinity counts as `infinity`. Where NaN is
  // right: 0 if `found` is right. Elsewhere infinite if `found` is NaN.
  double ErrorUlp(double found) const;
};

// The results of backward; forward has only h.
struct ExpectedResults {
  Expected h;
  Expected df;
  Expected de;
};

// What the results of one element of the inputs should be.
Expected ExpectForward(Dtype dtype, double e, double g);
ExpectedResults ExpectBackward(Dtype dtype, double dw, double e, double g);

// Element `index` of a tensor, whose bytes need no alignment.
double ElementAt(Dtype dtype, const std::byte* tensor, int64_t index);

}  // namespace swiglu::check
