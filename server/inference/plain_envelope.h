// SPDX-License-Identifier: Apache-2.0
//
// A fast path for a ModelInferRequest. It finds the length of the envelope if the message has the
// layout that nearly every client uses. Reads one stretch of bytes and never past its end; pure.
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
// no typed contents. Otherwise nullopt, which says nothing about the message. This does not look
// at the content of the fields, so they may be invalid protobuf.
std::optional<PlainEnvelope> FindPlainEnvelope(absl::Span<const unsigned char> bytes);

}  // namespace swiglu::server
