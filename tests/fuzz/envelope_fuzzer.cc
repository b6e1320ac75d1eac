// SPDX-License-Identifier: Apache-2.0
//
// The libFuzzer target for the envelope parser: any message in any slices. It ends where ours and
// the generated parser disagree; the sanitizers end it where memory or arithmetic goes wrong. What
// it finds belongs into corpus/, where a test of every build replays it.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/envelope_oracle.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace swiglu::server;
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  const std::string difference = Disagreement(ReadFuzzInput(bytes));
  if (!difference.empty()) {
    std::fprintf(stderr, "the envelope parser %s\n", difference.c_str());
    std::abort();
  }
  return 0;
}
