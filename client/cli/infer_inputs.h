// SPDX-License-Identifier: Apache-2.0
//
// The inputs of `swiglu forward`, `backward` and `mlp`: where the flags say that they are, and what
// is there.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cli/command_line.h"
#include "client/files/tensor_file.h"
#include "swiglu/tensor.h"

namespace swiglu::cli {

// Whether the command computes gradients.
bool IsBackward(const CommandLine& command_line);

// OK if the flags of the inputs fit together. INVALID_ARGUMENT, with a line that names the flags,
// if not. Looks at no file.
absl::Status CheckInputFlags(const CommandLine& command_line);

// The inputs of a call. Move-only.
struct Inputs {
  std::vector<files::TensorFile> files;     // each once, and standard input
  std::vector<client::TensorView> tensors;  // in the order of the call's arguments; borrow `files`

  // The format that all files have. INVALID_ARGUMENT if they have several.
  absl::StatusOr<files::Format> CommonFormat() const;

  // The bytes that came through standard input.
  uint64_t StandardInputBytes() const;
};

// Opens the files, and reads standard input if a flag names it. RESOURCE_EXHAUSTED if more comes
// through it than fits into memory together with the results. REQUIRES: CheckInputFlags is OK.
absl::StatusOr<Inputs> OpenInputs(const CommandLine& command_line);

}  // namespace swiglu::cli
