// SPDX-License-Identifier: Apache-2.0
//
// The .safetensors format of Hugging Face: a length, a JSON header of this length, and the bytes of
// all tensors. This service uses F16, BF16 and F32. A file may also hold other dtypes.
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
  std::string dtype;  // the format's name for it, for example F16
  client::Shape shape;
  absl::Span<const std::byte> bytes;
};

// Whether `bytes` may be the beginning of a .safetensors file: the length of a header that is not
// too long, and the first byte of a header.
bool IsSafetensors(absl::Span<const std::byte> bytes);

// All tensors in `file`, which has the bytes of a whole .safetensors file. The tensors are in the
// order in which their bytes lie in the file. INVALID_ARGUMENT if the file is malformed, or if the
// tensors' bytes do not fill the rest of the file exactly, without gap or overlap. The error
// message is one sentence that begins with `path`.
absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensors(absl::string_view path,
                                                               absl::Span<const std::byte> file);

// The tensor `name` of `file`, or the only tensor if `name` is empty. Fails like ParseSafetensors.
// INVALID_ARGUMENT also if the service does not have the tensor's dtype, or if `name` is empty and
// the file does not hold exactly one tensor. NOT_FOUND if no tensor is called `name`.
absl::StatusOr<client::TensorView> FindSafetensor(absl::string_view path,
                                                  absl::Span<const std::byte> file,
                                                  absl::string_view name);

// A tensor and its name in a file. Borrows both.
struct NamedTensor {
  absl::string_view name;
  client::TensorView tensor;
};

// The bytes that come before the tensors' bytes, in a file that holds these tensors in this order.
std::string SafetensorsHeader(absl::Span<const NamedTensor> tensors);

}  // namespace swiglu::files
