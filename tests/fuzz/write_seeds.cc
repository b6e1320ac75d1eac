// SPDX-License-Identifier: Apache-2.0
//
// Writes the seeds into a folder: `fuzz_write_seeds tests/fuzz/corpus`, after a change of seeds.cc.
#include <cstdio>
#include <fstream>

#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/seeds.h"

int main(int argc, char** argv) {
  using namespace swiglu::server;
  if (argc != 2) {
    std::fprintf(stderr, "usage: fuzz_write_seeds FOLDER\n");
    return 2;
  }
  for (const Seed& seed : Seeds()) {
    std::ofstream file(std::string(argv[1]) + "/" + seed.name, std::ios::binary);
    file << WriteFuzzInput(seed.slice_sizes, seed.message);
    if (!file.flush()) {
      std::fprintf(stderr, "cannot write %s/%s\n", argv[1], seed.name.c_str());
      return 1;
    }
  }
  return 0;
}
