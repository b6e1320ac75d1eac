// SPDX-License-Identifier: Apache-2.0
//
// What the envelope parser must make of a message, judged by the generated parser, which gets the
// same bytes in one piece. The fuzzer asks it, and so does the test that replays the corpus.
#pragma once

#include <string>

#include "tests/fuzz/fuzz_input.h"

namespace swiglu::server {

// Takes `input` apart, checks it and copies its tensors. Says where that differs from what the
// generated parser gives; "" if nowhere.
//
// Both must take the same messages, but for the bound on the envelope and for spellings that no
// encoder writes and that the generated parser takes nevertheless: it drops what a tag of five
// bytes has beyond 32 bits and a varint of ten beyond 64, and it takes groups a hundred deep. Ours
// refuses those. A message that may hold one, by its bytes alone, ours may therefore refuse.
std::string Disagreement(const FuzzInput& input);

}  // namespace swiglu::server
