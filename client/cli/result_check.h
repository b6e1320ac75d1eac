// SPDX-License-Identifier: Apache-2.0
//
// `--check` of `swiglu forward` and `swiglu backward`.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cli/infer_inputs.h"
#include "swiglu/tensor.h"

namespace swiglu::cli {

// Compares the results of forward or backward with the formulas (client/check), on all cores.
// Returns the largest error of each result in ulp. DATA_LOSS, with the first wrong element, if a
// result is not right. `names` are those of the results.
absl::StatusOr<std::vector<double>> CheckResults(const Inputs& inputs,
                                                 const std::vector<std::string>& names,
                                                 const std::vector<client::Tensor>& results);

}  // namespace swiglu::cli
