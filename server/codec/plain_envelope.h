// SPDX-License-Identifier: Apache-2.0
//
// A fast path for a ModelInferRequest. Finds the length of the envelope if the message has the
// layout that nearly every client uses. Pure; never reads past the end of the given bytes.
#pragma once

#include <cstddef>
#include <optional>

#include "absl/types/span.h"

namespace swiglu::server {

// The size of an envelope, and its number of inputs.
struct PlainEnvelope {
  size_t size_bytes = 0;
  int num_inputs = 0;
};

// `bytes` is the beginning of a message. Takes the fields before the first raw_input_contents as
// the envelope. Returns nullopt if one of them is not whole, has an unknown number or an unusual
// encoding, or carries typed contents. The message may be valid all the same. Does not check what
// the fields contain.
std::optional<PlainEnvelope> FindPlainEnvelope(absl::Span<const unsigned char> bytes);

}  // namespace swiglu::server
