// SPDX-License-Identifier: Apache-2.0
//
// Compares whole results of a call with the formulas, on all cores.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "swiglu/dtype.h"

namespace swiglu::check {

// The tensors of a call. The bytes of all have the same size and need no alignment.
struct Call {
  using Bytes = absl::Span<const std::byte>;

  Dtype dtype = Dtype::kFp32;
  std::vector<Bytes> inputs;   // e, g for forward; dw, e, g for backward
  std::vector<Bytes> results;  // h for forward; h, df, de for backward
};

// A result that is not right.
struct WrongElement {
  size_t result = 0;  // its number among the results
  int64_t index = 0;  // in row-major order
  double found = 0;
  double exact = 0;
  double error_ulp = 0;
};

struct Report {
  std::vector<double> largest_ulp;          // the largest error of each result
  std::optional<WrongElement> first_wrong;  // the one with the lowest index, if any
};

// Looks at every element. `num_threads` (1 or more) threads take a chunk of elements at a time; the
// calling thread is one of them. Takes no memory for the tensors.
Report CheckCall(const Call& call, int num_threads);

}  // namespace swiglu::check
