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

// `bytes` is the beginning of a message. The envelope is the fields before the first
// raw_input_contents, if they are whole, have known numbers, and have no typed contents. Otherwise
// nullopt; the message may be valid all the same. The fields themselves are not checked.
std::optional<PlainEnvelope> FindPlainEnvelope(absl::Span<const unsigned char> bytes);

}  // namespace swiglu::server
