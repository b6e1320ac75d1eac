// SPDX-License-Identifier: Apache-2.0
//
// Compares the answers of the six models with the formulas of SwiGLU, which it computes in float64.
// It uses none of the server's code.
#pragma once

#include <cstddef>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "client/bench/request_data.h"

namespace swiglu::bench {

// `answer` has the outputs of a request with `data`, one after the other. Looks at every element of
// a request of up to 2^20 elements, and at 2^20 elements of a larger one, which are spread evenly.
//
// DATA_LOSS, with the first wrong element, unless these are within the bounds of the CPU and of
// CUDA: f and de within 1 unit in the last place in FP16 and BF16, and within 64 in FP32, because
// the exponential of a GPU is an approximation. For de in FP32, the unit is that of
// |dg * se| * max(1, |e|). h and df are rounded products of such an f.
//
// REQUIRES: the model is not that of an MLP; `answer` has its output bytes.
absl::Status CheckByFormula(const RequestData& data, absl::Span<const std::byte> answer);

}  // namespace swiglu::bench
