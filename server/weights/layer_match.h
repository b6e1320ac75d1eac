// SPDX-License-Identifier: Apache-2.0
//
// Whether new weights fit the models of an MLP, which are constant while the server runs. Pure.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/weights/mlp_layer.h"

namespace swiglu::server {

// OK if `found`, the layers in the files at `path`, have the numbers, dtypes and shapes of
// `served`. Otherwise FAILED_PRECONDITION, with a sentence about the first difference that begins
// with `path`. REQUIRES: both are in ascending order of their numbers. Thread-safe.
absl::Status CheckSameLayers(const std::string& path, const std::vector<MlpLayer>& served,
                             const std::vector<MlpLayer>& found);

}  // namespace swiglu::server
