// SPDX-License-Identifier: Apache-2.0
//
// A table of extensions.
#include "client/files/tensor_format.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/files/npy.h"

namespace swiglu::files {
namespace {

struct KnownExtension {
  absl::string_view text;
  Format format;
};

// The first one of a format is the one that new files get.
constexpr KnownExtension kExtensions[] = {{".npy", Format::kNpy},
                                          {".safetensors", Format::kSafetensors},
                                          {".raw", Format::kRaw},
                                          {".bin", Format::kRaw}};

}  // namespace

absl::string_view Extension(Format format) {
  return std::find_if(std::begin(kExtensions), std::end(kExtensions),
                      [format](const auto& known) { return known.format == format; })
      ->text;
}

absl::StatusOr<Format> FormatOf(absl::string_view path) {
  for (const auto& [text, format] : kExtensions) {
    if (absl::EndsWith(path, text)) return format;
  }
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": unknown extension; expected .npy, .safetensors, .raw or .bin"));
}

absl::Status CheckFormatHolds(Format format, client::Dtype dtype, size_t num_tensors) {
  if (format != Format::kNpy) return absl::OkStatus();
  if (num_tensors != 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a .npy file holds one tensor, not ", num_tensors, "; a .safetensors file holds several"));
  }
  return NpyHeader(dtype, {}).status();
}

TensorName SplitTensorName(absl::string_view text) {
  size_t end = absl::StartsWith(text, "-:") ? 1 : absl::string_view::npos;
  for (const KnownExtension& known : kExtensions) {
    const size_t found = text.find(absl::StrCat(known.text, ":"));
    if (found != absl::string_view::npos) end = std::min(end, found + known.text.size());
  }
  if (end == absl::string_view::npos) return {std::string(text), ""};
  return {std::string(text.substr(0, end)), std::string(text.substr(end + 1))};
}

}  // namespace swiglu::files
