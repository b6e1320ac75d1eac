// SPDX-License-Identifier: Apache-2.0
//
// Compares the answers of the six models with the formulas of SwiGLU in float64.
#pragma once

#include <cstddef>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "client/bench/request_data.h"

namespace swiglu::bench {

// `answer` has the outputs of a request with `data`, one after the other. Looks at every element of
// a request of up to 2^20 elements, and at 2^20 elements of a larger one, which are spread evenly.
//
// DATA_LOSS, with the first wrong element, unless these are right as client/check/formula.h says.
//
// REQUIRES: the model is not that of an MLP; `answer` has its output bytes.
absl::Status CheckByFormula(const RequestData& data, absl::Span<const std::byte> answer);

}  // namespace swiglu::bench
