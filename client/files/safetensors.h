// SPDX-License-Identifier: Apache-2.0
//
// The .safetensors format of Hugging Face: the length of a JSON header, the header, the bytes of
// all tensors. This service uses tensors of F16, BF16 and F32; a file may hold others beside them.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "swiglu/tensor.h"

namespace swiglu::files {

// One tensor of a file. Borrows its bytes.
struct SafetensorsEntry {
  std::string name;
  std::string dtype;  // the format's own name, F16 for instance
  client::Shape shape;
  absl::Span<const std::byte> bytes;
};

// All tensors in `file`, the bytes of a whole .safetensors file, in the order of their bytes.
// INVALID_ARGUMENT if the file is not exactly right, down to its last byte: it contains the bytes
// of every tensor, no two tensors overlap, and no bytes are left over. The error is one sentence
// that begins with `path`.
absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensors(absl::string_view path,
                                                               absl::Span<const std::byte> file);

// The tensor `name` of `file`, or its only one if `name` is empty. Fails like ParseSafetensors.
// Also INVALID_ARGUMENT for a dtype that the service does not have, and for an empty name if the
// file does not hold exactly one tensor; NOT_FOUND for an unknown name.
absl::StatusOr<client::TensorView> FindSafetensor(absl::string_view path,
                                                  absl::Span<const std::byte> file,
                                                  absl::string_view name);

// The bytes in front of a tensor's bytes, in a file that holds only this tensor.
std::string SafetensorsHeader(absl::string_view name, client::Dtype dtype,
                              absl::Span<const int64_t> shape, int64_t size_bytes);

}  // namespace swiglu::files
