// SPDX-License-Identifier: Apache-2.0
//
// Standard input and output as sources and targets of bytes. They may be files, pipes, terminals or
// closed.
#pragma once

#include <cstddef>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace swiglu::files {

// Opens /dev/null in the place of standard input, output and error if they are closed, so that no
// other file of this process gets their numbers. Such a stream still counts as closed. Call it at
// the beginning of `main`.
void HoldStandardStreams();

// OK if bytes can come from standard input. FAILED_PRECONDITION if it is a terminal or closed.
absl::Status CheckMayReadStandardInput();

// OK if standard output takes bytes. FAILED_PRECONDITION if it is a terminal or closed.
absl::Status CheckMayWriteStandardOutput();

// Writes `bytes` to standard output, past the buffer of stdio, and blocks until all are written.
// Fails if the reader of a pipe has gone. REQUIRES: SIGPIPE is ignored.
absl::Status WriteStandardOutput(absl::Span<const std::byte> bytes);

}  // namespace swiglu::files
