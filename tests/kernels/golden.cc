// SPDX-License-Identifier: Apache-2.0
//
// The golden files as patterns.
#include "tests/kernels/golden.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <string>

namespace swiglu::kernels {
namespace {

constexpr size_t kNumPatterns = 65536;
constexpr size_t kNumRows = 16;
constexpr size_t kNumFp32 = 262144;

// Little-endian elements, exactly as many as asked for.
template <typename Element>
Patterns Read(const std::string& name, size_t num_elements) {
  const char* folder = std::getenv("SWIGLU_GOLDEN_DIR");
  const std::string path = std::string(folder != nullptr ? folder : GOLDEN_DIR) + "/" + name;
  std::ifstream file(path, std::ios::binary);
  std::vector<Element> elements(num_elements);
  file.read(reinterpret_cast<char*>(elements.data()),
            static_cast<std::streamsize>(num_elements * sizeof(Element)));
  EXPECT_TRUE(file.good()) << "cannot read " << num_elements << " elements of " << path;
  EXPECT_EQ(file.peek(), std::ifstream::traits_type::eof()) << path << " has more than expected";
  return Patterns(elements.begin(), elements.end());
}

Patterns Slice(const Patterns& all, size_t index, size_t num_elements) {
  const auto first = all.begin() + static_cast<std::ptrdiff_t>(index * num_elements);
  return Patterns(first, first + static_cast<std::ptrdiff_t>(num_elements));
}

}  // namespace

Patterns ReadGoldenForward(Dtype dtype) {
  return Read<uint16_t>(std::string("forward_f_") + Name(dtype) + ".u16", kNumPatterns);
}

std::vector<GoldenRow> ReadGoldenBackward(Dtype dtype) {
  const std::string suffix = std::string(Name(dtype)) + ".u16";
  const Patterns dg = Read<uint16_t>("backward_dg_" + suffix, kNumRows);
  const Patterns de = Read<uint16_t>("backward_de_" + suffix, kNumRows * kNumPatterns);
  std::vector<GoldenRow> rows;
  for (size_t i = 0; i < kNumRows; ++i) rows.push_back({dg[i], Slice(de, i, kNumPatterns)});
  return rows;
}

GoldenFp32 ReadGoldenFp32() {
  const Patterns all = Read<uint32_t>("fp32_e_f_de.u32", 3 * kNumFp32);
  return {Slice(all, 0, kNumFp32), Slice(all, 1, kNumFp32), Slice(all, 2, kNumFp32)};
}

}  // namespace swiglu::kernels
