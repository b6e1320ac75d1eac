// SPDX-License-Identifier: Apache-2.0
//
// The short way through a ModelInferRequest: finds how long its envelope is where the message is
// laid out as nearly every client lays it out. Looks at one stretch of bytes and never past it;
// pure.
#pragma once

#include <cstddef>
#include <optional>

#include "absl/types/span.h"

namespace swiglu::server {

// The envelope of a message that begins with `bytes`.
struct PlainEnvelope {
  size_t size_bytes = 0;
  int num_inputs = 0;
};

// The fields before the first raw_input_contents, if they are whole, have known numbers, and have
// no typed contents. Otherwise nullopt, which says nothing about the message. What they hold is not
// looked at, and they may be no valid protobuf.
std::optional<PlainEnvelope> FindPlainEnvelope(absl::Span<const unsigned char> bytes);

}  // namespace swiglu::server
