// SPDX-License-Identifier: Apache-2.0
//
// The libFuzzer target for the parsers of model files: headers, indexes, and the names in them. It
// ends where weights_oracle.h finds something wrong; the sanitizers end it where memory or
// arithmetic goes wrong. What it finds belongs into weights_corpus/, where a test of every build
// replays it.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/weights_oracle.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view input(reinterpret_cast<const char*>(data), size);
  const std::string difference = swiglu::server::ModelDisagreement(input);
  if (!difference.empty()) {
    std::fprintf(stderr, "the parser of model files %s\n", difference.c_str());
    std::abort();
  }
  return 0;
}
