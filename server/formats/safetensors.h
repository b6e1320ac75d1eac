// SPDX-License-Identifier: Apache-2.0
//
// The .safetensors format of Hugging Face: a length, a JSON header of this length, and the bytes of
// all tensors (the data). The functions here parse the header. They need no bytes of the data.
//
// Errors are INVALID_ARGUMENT. Each is one sentence that begins with `path`. The functions are
// thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace swiglu::server {

// The length of the header, little-endian, is at the beginning of the file.
inline constexpr size_t kSafetensorsLengthBytes = 8;
// The limit that the format sets.
inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;

// One tensor of a file.
struct SafetensorsTensor {
  std::string name;
  std::string dtype;           // the format's name for it, for example F16
  std::vector<int64_t> shape;  // dimensions, outermost first, each >= 0
  uint64_t begin = 0;          // the first byte, counted from the beginning of the data
  uint64_t end = 0;            // the byte after the last

  uint64_t size_bytes() const { return end - begin; }
};

// The number of bytes of the header of a file of `file_bytes` bytes. `first_bytes` has the first
// kSafetensorsLengthBytes of the file or more, or all if the file is shorter. Fails if the file is
// too short for its header, or the header is larger than kMaxSafetensorsHeaderBytes.
absl::StatusOr<uint64_t> SafetensorsHeaderBytes(absl::string_view path,
                                                absl::Span<const std::byte> first_bytes,
                                                uint64_t file_bytes);

// All tensors that `header` lists, in the order in which their bytes lie in the data, which has
// `data_bytes` bytes. Fails if the header is malformed, or nested more than 127 deep, or if the
// tensors' bytes do not fill the data exactly, without gap or overlap. Fails also if a tensor of
// dtype F16, BF16 or F32 has another size than its shape needs. Tensors of other dtypes may have
// any size. The cost grows with the length of the header and with sorting its tensors.
absl::StatusOr<std::vector<SafetensorsTensor>> ParseSafetensorsHeader(absl::string_view path,
                                                                      absl::string_view header,
                                                                      uint64_t data_bytes);

// The name of a tensor as errors show it: in quotes, escaped, and cut after 128 bytes.
std::string QuotedTensorName(absl::string_view name);

// A shape as errors show it, for example `[2,1024,11008]`. Shows 16 dimensions at most.
std::string ShownShape(absl::Span<const int64_t> shape);

}  // namespace swiglu::server
