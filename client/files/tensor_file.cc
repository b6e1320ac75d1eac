// SPDX-License-Identifier: Apache-2.0
//
// Finds the format of a file by its name, and calls the reader or writer of that format.
#include "client/files/tensor_file.h"

#include <cstdint>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "client/files/npy.h"
#include "client/files/safetensors.h"

namespace swiglu::files {
namespace {

using client::Dtype;
using client::TensorView;

constexpr Format kFormats[] = {Format::kNpy, Format::kSafetensors};

// The parts of FILE[:TENSOR]. `tensor` is empty if it is left out.
struct Spec {
  std::string path;
  std::string tensor;
};

Spec SplitSpec(absl::string_view spec) {
  size_t end = absl::string_view::npos;
  for (const Format format : kFormats) {
    const size_t found = spec.find(absl::StrCat(Extension(format), ":"));
    if (found != absl::string_view::npos) {
      end = std::min(end, found + Extension(format).size());
    }
  }
  if (end == absl::string_view::npos) return {std::string(spec), ""};
  return {std::string(spec.substr(0, end)), std::string(spec.substr(end + 1))};
}

absl::StatusOr<std::string> Header(Format format, absl::string_view name,
                                   const TensorView& tensor) {
  if (format == Format::kNpy) return NpyHeader(tensor.dtype, tensor.shape);
  return SafetensorsHeader(name, tensor.dtype, tensor.shape,
                           static_cast<int64_t>(tensor.bytes.size()));
}

}  // namespace

absl::string_view Extension(Format format) {
  return format == Format::kNpy ? ".npy" : ".safetensors";
}

absl::StatusOr<Format> FormatOf(absl::string_view path) {
  for (const Format format : kFormats) {
    if (absl::EndsWith(path, Extension(format))) return format;
  }
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": unknown extension; expected .npy or .safetensors"));
}

absl::Status CheckFormatHolds(Format format, Dtype dtype) {
  if (format != Format::kNpy || dtype != Dtype::kBf16) return absl::OkStatus();
  return NpyHeader(dtype, {}).status();
}

absl::StatusOr<TensorFile> TensorFile::Open(absl::string_view spec) {
  const auto [path, name] = SplitSpec(spec);
  absl::StatusOr<Format> format = FormatOf(path);
  if (!format.ok()) return format.status();
  if (*format == Format::kNpy && path.size() != spec.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": a .npy file holds one tensor without a name; '", name, "' is none"));
  }
  absl::StatusOr<std::unique_ptr<MappedFile>> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<TensorView> tensor = *format == Format::kNpy
                                          ? ParseNpy(path, (*file)->bytes())
                                          : FindSafetensor(path, (*file)->bytes(), name);
  if (!tensor.ok()) return tensor.status();
  return TensorFile{*std::move(file), *std::move(tensor), *format};
}

OutputFile::Created WriteTensor(const std::string& path, absl::string_view name,
                                const TensorView& tensor, IfExists if_exists,
                                UnfinishedFiles* unfinished) {
  absl::StatusOr<Format> format = FormatOf(path);
  if (!format.ok()) return format.status();
  absl::StatusOr<std::string> header = Header(*format, name, tensor);
  if (!header.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", header.status().message()));
  }
  OutputFile::Created file = OutputFile::Create(path, if_exists, unfinished);
  if (!file.ok()) return file.status();
  absl::Status status =
      (*file)->Write({reinterpret_cast<const std::byte*>(header->data()), header->size()});
  if (status.ok()) status = (*file)->Write(tensor.bytes);
  if (status.ok()) status = (*file)->Sync();
  if (!status.ok()) return status;
  return file;
}

}  // namespace swiglu::files
