// SPDX-License-Identifier: Apache-2.0
//
// The messages that the fuzzer starts from, each described by how it is made. corpus/ holds them as
// files of those names, written by `fuzz_write_seeds`, beside whatever the fuzzer has found.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace swiglu::server {

struct Seed {
  std::string name;
  // What decoding it gives.
  absl::StatusCode code;
  // As fuzz_input.h says.
  std::string slice_sizes;
  std::string message;
};

std::vector<Seed> Seeds();

}  // namespace swiglu::server
