// SPDX-License-Identifier: Apache-2.0
//
// The index of a model whose tensors are in several .safetensors files: a JSON file
// `model.safetensors.index.json` in the same folder. Its `weight_map` gives the file of each
// tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace swiglu::server {

// The largest index that is read. That of a model with 100,000 tensors has some 10 MB.
inline constexpr uint64_t kMaxSafetensorsIndexBytes = 100'000'000;
// The most tensors that an index may list.
inline constexpr size_t kMaxIndexedTensors = 1'000'000;

// A tensor, and the name of its file.
struct IndexedTensor {
  std::string name;
  std::string file;  // in the folder of the index: never empty, `.`, `..` or with a slash
};

// The tensors that the index `text` lists, in the order of their names. Ignores what else the index
// has. INVALID_ARGUMENT, with a sentence that begins with `path`, if the index is larger than
// kMaxSafetensorsIndexBytes, lists more than kMaxIndexedTensors or is nested more than 127 deep, if
// it is no JSON object with a map `weight_map` of strings, if it has a tensor or `weight_map`
// twice, or if a file is outside the folder. The cost grows with the length of the index and with
// sorting its tensors. Thread-safe.
absl::StatusOr<std::vector<IndexedTensor>> ParseSafetensorsIndex(absl::string_view path,
                                                                 absl::string_view text);

// The error for an index of `size_bytes` bytes, which are too many. So a reader can refuse the
// index before it reads it.
absl::Status SafetensorsIndexTooLarge(absl::string_view path, uint64_t size_bytes);

}  // namespace swiglu::server
