// SPDX-License-Identifier: Apache-2.0
//
// Replays the corpora of the fuzzers, seeds and findings, under any compiler.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/fuzz/envelope_oracle.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/seeds.h"
#include "tests/fuzz/weights_oracle.h"
#include "tests/fuzz/weights_seeds.h"
#include "tests/rpc/decoding.h"

namespace swiglu::server {
namespace {

const std::filesystem::path kCorpus = SWIGLU_FUZZ_CORPUS;
const std::filesystem::path kModelCorpus = SWIGLU_FUZZ_WEIGHTS_CORPUS;

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(FuzzInputTest, CutsAMessageIntoTheSizesInTurn) {
  const FuzzInput input = ReadFuzzInput(WriteFuzzInput(std::string("\x01\0\x02", 3), "abcde"));
  EXPECT_EQ(input.message, "abcde");
  const std::vector<size_t> expected = {1, 0, 2, 1, 0, 1};
  std::vector<size_t> sizes;
  for (const grpc::Slice& slice : input.slices) sizes.push_back(slice.size());
  EXPECT_EQ(sizes, expected);
  EXPECT_EQ(Concatenate(input.slices), "abcde");
}

TEST(FuzzInputTest, IsOneSliceWithoutASize) {
  EXPECT_EQ(ReadFuzzInput(WriteFuzzInput("", "abc")).slices.size(), 1u);
  EXPECT_EQ(ReadFuzzInput(WriteFuzzInput(std::string(2, '\0'), "abc")).slices.size(), 1u);
  EXPECT_EQ(ReadFuzzInput("").slices.size(), 0u);
  EXPECT_EQ(ReadFuzzInput("\x0f").slices.size(), 0u);
}

TEST(EnvelopeCorpusTest, HasEverySeedAsDescribed) {
  for (const Seed& seed : Seeds()) {
    const std::string bytes = WriteFuzzInput(seed.slice_sizes, seed.message);
    EXPECT_EQ(ReadFile(kCorpus / seed.name), bytes) << seed.name << ": run fuzz_write_seeds";
    const absl::Status status = Decode(ReadFuzzInput(bytes).slices).status;
    EXPECT_EQ(status.code(), seed.code) << seed.name << ": " << status;
  }
}

TEST(EnvelopeCorpusTest, IsDecodedAsTheGeneratedParserDoes) {
  for (const auto& entry : std::filesystem::directory_iterator(kCorpus)) {
    EXPECT_EQ(Disagreement(ReadFuzzInput(ReadFile(entry.path()))), "") << entry.path();
  }
}

TEST(ModelCorpusTest, HasEverySeedAsDescribed) {
  for (const ModelSeed& seed : ModelSeeds()) {
    EXPECT_EQ(ReadFile(kModelCorpus / seed.name), seed.input)
        << seed.name << ": run fuzz_write_seeds";
    const absl::Status status = ParseModelInput(seed.input);
    EXPECT_EQ(status.ok(), seed.is_good) << seed.name << ": " << status;
  }
}

TEST(ModelCorpusTest, IsParsedAsTheDocumentSays) {
  for (const auto& entry : std::filesystem::directory_iterator(kModelCorpus)) {
    EXPECT_EQ(ModelDisagreement(ReadFile(entry.path())), "") << entry.path();
  }
}

}  // namespace
}  // namespace swiglu::server
