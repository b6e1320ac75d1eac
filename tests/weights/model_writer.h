// SPDX-License-Identifier: Apache-2.0
//
// The content of model files, for tests that write some.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/client/bytes.h"

namespace swiglu::server {

struct TestTensor {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};

// A tensor with elements of two bytes, which depend on `seed`.
inline TestTensor Weight(std::string name, std::vector<int64_t> shape, uint32_t seed,
                         std::string dtype = "BF16") {
  size_t num_elements = 1;
  for (const int64_t dim : shape) num_elements *= static_cast<size_t>(dim);
  return {std::move(name), std::move(dtype), std::move(shape), Pattern(2 * num_elements, seed)};
}

// The tensors of an MLP with H = 16 and I = 8, in the order down, gate, up. Each has 256 bytes. The
// seeds of gate, up and down are `seed`, `seed` + 1 and `seed` + 2.
inline std::vector<TestTensor> SmallMlp(const std::string& stem, uint32_t seed,
                                        const std::string& dtype = "BF16") {
  return {Weight(stem + "down_proj.weight", {16, 8}, seed + 2, dtype),
          Weight(stem + "gate_proj.weight", {8, 16}, seed, dtype),
          Weight(stem + "up_proj.weight", {8, 16}, seed + 1, dtype)};
}

// The tensors of several lists, one after the other.
inline std::vector<TestTensor> Joined(const std::vector<std::vector<TestTensor>>& lists) {
  std::vector<TestTensor> joined;
  for (const std::vector<TestTensor>& list : lists) {
    joined.insert(joined.end(), list.begin(), list.end());
  }
  return joined;
}

// The 8 bytes before a header of so many bytes.
inline std::string HeaderLength(uint64_t value) {
  std::string bytes;
  for (int k = 0; k < 8; ++k) bytes.push_back(static_cast<char>(value >> (8 * k) & 0xFF));
  return bytes;
}

// A .safetensors file.
inline std::string ModelFile(const std::vector<TestTensor>& tensors) {
  std::vector<std::string> entries;
  std::string data;
  for (const TestTensor& tensor : tensors) {
    const size_t begin = data.size();
    data += tensor.bytes;
    entries.push_back(absl::StrCat("\"", tensor.name, R"(":{"dtype":")", tensor.dtype,
                                   R"(","shape":[)", absl::StrJoin(tensor.shape, ","),
                                   R"(],"data_offsets":[)", begin, ",", data.size(), "]}"));
  }
  const std::string header = absl::StrCat("{", absl::StrJoin(entries, ","), "}");
  return HeaderLength(header.size()) + header + data;
}

// An index that gives each of the tensors its file.
inline std::string ModelIndex(const std::vector<std::pair<std::string, std::string>>& files) {
  std::vector<std::string> entries;
  entries.reserve(files.size());
  for (const auto& [tensor, file] : files) {
    entries.push_back(absl::StrCat("\"", tensor, "\":\"", file, "\""));
  }
  return absl::StrCat(R"({"metadata":{"total_size":1},"weight_map":{)", absl::StrJoin(entries, ","),
                      "}}");
}

}  // namespace swiglu::server
