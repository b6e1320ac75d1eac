// SPDX-License-Identifier: Apache-2.0
//
// The model files that the fuzzer starts from, each described by how it is made. weights_corpus/
// holds them as files of those names, written by `fuzz_write_seeds`, beside whatever the fuzzer has
// found.
#pragma once

#include <string>
#include <vector>

namespace swiglu::server {

struct ModelSeed {
  std::string name;
  bool is_good;       // whether ParseModelInput takes it
  std::string input;  // as weights_oracle.h says
};

std::vector<ModelSeed> ModelSeeds();

}  // namespace swiglu::server
