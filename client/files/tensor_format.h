// SPDX-License-Identifier: Apache-2.0
//
// The formats of tensor files, and how users name files and the tensors in them.
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "swiglu/tensor.h"

namespace swiglu::files {

// A raw file has only the bytes of its tensors, one tensor after the other, row-major and
// little-endian.
enum class Format { kNpy, kSafetensors, kRaw };

// The extension that files of `format` get: `.npy`, `.safetensors` or `.raw`.
absl::string_view Extension(Format format);

// The format that the extension of `path` names; `.bin` is a second one for kRaw. INVALID_ARGUMENT
// for any other extension.
absl::StatusOr<Format> FormatOf(absl::string_view path);

// OK if a file of this format can hold `num_tensors` tensors of this dtype, INVALID_ARGUMENT if
// not. A .npy file holds one tensor.
absl::Status CheckFormatHolds(Format format, client::Dtype dtype, size_t num_tensors);

// In the place of a file: standard input or standard output.
inline constexpr char kStandardStream[] = "-";

// The parts of FILE or FILE:TENSOR. `tensor` is empty if it is left out.
struct TensorName {
  std::string path;
  std::string tensor;
};

// Cuts `text` into its parts. FILE is kStandardStream, or ends at the first of the extensions with
// a colon after it, such as `.npy:`.
TensorName SplitTensorName(absl::string_view text);

}  // namespace swiglu::files
