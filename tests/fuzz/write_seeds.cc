// SPDX-License-Identifier: Apache-2.0
//
// Writes the seeds into two folders, after a change of seeds.cc or weights_seeds.cc:
// `fuzz_write_seeds tests/fuzz/corpus tests/fuzz/weights_corpus`.
#include <cstdio>
#include <fstream>

#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/seeds.h"
#include "tests/fuzz/weights_seeds.h"

namespace {

// Returns whether that worked. Says what did not.
bool WriteSeed(const std::string& folder, const std::string& name, const std::string& bytes) {
  const std::string path = folder + "/" + name;
  std::ofstream file(path, std::ios::binary);
  file << bytes;
  if (file.flush()) return true;
  std::fprintf(stderr, "cannot write %s\n", path.c_str());
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  using swiglu::server::ModelSeed;
  using swiglu::server::Seed;
  if (argc != 3) {
    std::fprintf(stderr, "usage: fuzz_write_seeds FOLDER FOLDER_OF_MODEL_FILES\n");
    return 2;
  }
  for (const Seed& seed : swiglu::server::Seeds()) {
    if (!WriteSeed(argv[1], seed.name,
                   swiglu::server::WriteFuzzInput(seed.slice_sizes, seed.message)))
      return 1;
  }
  for (const ModelSeed& seed : swiglu::server::ModelSeeds()) {
    if (!WriteSeed(argv[2], seed.name, seed.input)) return 1;
  }
  return 0;
}
