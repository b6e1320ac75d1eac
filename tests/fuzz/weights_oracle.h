// SPDX-License-Identifier: Apache-2.0
//
// What the parsers of model files must make of their input, judged by nlohmann's own parser, which
// keeps the whole document. The fuzzer asks it, and so does the test that replays the corpus.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace swiglu::server {

// The first byte of an input says what the rest is.
inline constexpr char kModelFileInput = 'f';   // a .safetensors file
inline constexpr char kModelIndexInput = 'i';  // an index; so is any other first byte

// Parses `input`, and decides which tensors make up layers. The first error, or OK.
absl::Status ParseModelInput(absl::string_view input);

// Says what is wrong with what the parsers give for `input`; "" if nothing. What they take must be
// what the document says, the bytes of tensors must fill the data, and layers must be made of the
// document's tensors. What they refuse must be INVALID_ARGUMENT, and one line of printable text.
std::string ModelDisagreement(absl::string_view input);

}  // namespace swiglu::server
