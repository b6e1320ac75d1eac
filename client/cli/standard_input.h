// SPDX-License-Identifier: Apache-2.0
//
// Tensors that come through standard input.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "client/files/tensor_file.h"

namespace swiglu::cli {

// Reads standard input to its end, and takes it for a file with the tensors `raw` or, without them,
// for a .npy or .safetensors file, as its first bytes tell. Errors begin with `stdin: `.
// FAILED_PRECONDITION if it is a terminal or closed. INVALID_ARGUMENT if it begins as no file does.
// RESOURCE_EXHAUSTED if it has more bytes than `raw` needs, or more than `max_bytes`, for which
// there is memory.
absl::StatusOr<files::TensorFile> ReadStandardInput(const std::optional<files::RawTensors>& raw,
                                                    uint64_t max_bytes);

}  // namespace swiglu::cli
