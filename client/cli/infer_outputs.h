// SPDX-License-Identifier: Apache-2.0
//
// The results of `swiglu forward`, `backward` and `mlp`: where they go.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cli/command_line.h"
#include "client/cli/infer_inputs.h"
#include "client/files/tensor_format.h"
#include "client/files/unfinished_files.h"
#include "swiglu/tensor.h"

namespace swiglu::cli {

// A file, or standard output, for one result or for all.
struct Output {
  std::string path;  // kStandardStream: standard output
  files::Format format;
  std::vector<std::string> results;  // their names
};

// OK if the flags of the outputs fit together. INVALID_ARGUMENT, with a line that names the flags,
// if not.
absl::Status CheckOutputFlags(const CommandLine& command_line);

// The outputs, which have the results in the order of the call's. Those in a folder or on standard
// output get the format that all inputs have.
absl::StatusOr<std::vector<Output>> PlanOutputs(const CommandLine& command_line,
                                                const Inputs& inputs);

// Whether the results go to standard output.
bool IsOnStandardOutput(const CommandLine& command_line);

// OK if the outputs can hold results of this dtype and can be written, as far as this is known
// before they are.
absl::Status CheckOutputs(const CommandLine& command_line, const std::vector<Output>& outputs,
                          client::Dtype dtype);

// Writes the results. Files get their names only when all are written; a folder that had to be made
// is removed again after an error, unless it has files. `unfinished` knows what is not finished.
absl::Status WriteOutputs(const CommandLine& command_line, const std::vector<Output>& outputs,
                          const std::vector<client::Tensor>& results,
                          files::UnfinishedFiles& unfinished);

}  // namespace swiglu::cli
