// SPDX-License-Identifier: Apache-2.0
//
// Writes tensors to a new file or to standard output.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "client/files/output_file.h"
#include "client/files/safetensors.h"
#include "client/files/tensor_format.h"
#include "client/files/unfinished_files.h"

namespace swiglu::files {

// Writes `tensors` to a new file, in the format of `path`'s extension, and makes the file durable.
// Only a .safetensors file has their names. The file gets its own name only from
// OutputFile::Commit. `unfinished` must outlive the returned object. INVALID_ARGUMENT if the format
// does not hold these tensors.
OutputFile::Created WriteTensors(const std::string& path, absl::Span<const NamedTensor> tensors,
                                 IfExists if_exists, UnfinishedFiles* unfinished);

// Writes `tensors` to standard output, in `format`. Fails like WriteTensors and like
// WriteStandardOutput.
absl::Status WriteTensorsToStandardOutput(Format format, absl::Span<const NamedTensor> tensors);

}  // namespace swiglu::files
