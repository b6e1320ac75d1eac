// SPDX-License-Identifier: Apache-2.0
//
// Calls the reader of a file's format. A raw file needs none.
#include "client/files/tensor_file.h"

#include <cstdint>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/files/npy.h"
#include "client/files/safetensors.h"

namespace swiglu::files {

using client::TensorView;

absl::StatusOr<int64_t> RawBytes(const RawTensors& tensors) {
  const absl::StatusOr<int64_t> bytes = client::TensorBytes("raw", tensors.dtype, tensors.shape);
  const auto num_tensors = static_cast<int64_t>(tensors.num_tensors);
  if (bytes.ok() && *bytes <= std::numeric_limits<int64_t>::max() / num_tensors) {
    return *bytes * num_tensors;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("shape is too large: ", client::FormatShape(tensors.shape)));
}

absl::StatusOr<TensorFile> TensorFile::Open(const std::string& path) {
  const absl::StatusOr<Format> format = FormatOf(path);
  if (!format.ok()) return format.status();
  absl::StatusOr<std::unique_ptr<MappedFile>> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  return TensorFile(path, *std::move(file), *format);
}

absl::StatusOr<TensorView> TensorFile::Find(absl::string_view tensor) const {
  switch (format_) {
    case Format::kSafetensors:
      return FindSafetensor(name_, bytes(), tensor);
    case Format::kNpy:
      if (tensor.empty()) return ParseNpy(name_, bytes());
      return absl::InvalidArgumentError(absl::StrCat(
          name_, ": a .npy file holds one tensor without a name; '", tensor, "' is none"));
    case Format::kRaw:
      break;
  }
  return absl::InvalidArgumentError(
      absl::StrCat(name_, ": raw tensors have no names; '", tensor, "' is none"));
}

absl::StatusOr<TensorView> TensorFile::FindRaw(const RawTensors& tensors, size_t index) const {
  const absl::StatusOr<int64_t> needed = RawBytes(tensors);
  if (!needed.ok()) return needed.status();
  if (bytes().size() != static_cast<uint64_t>(*needed)) {
    return absl::InvalidArgumentError(absl::StrCat(
        name_, ": it has ", bytes().size(), " bytes; ",
        tensors.num_tensors == 1 ? "a tensor" : absl::StrCat(tensors.num_tensors, " tensors"),
        " of shape ", client::FormatShape(tensors.shape), " of ",
        client::DatatypeName(tensors.dtype), tensors.num_tensors == 1 ? " needs " : " need ",
        *needed));
  }
  const size_t tensor_bytes = bytes().size() / tensors.num_tensors;
  return TensorView{tensors.dtype, tensors.shape,
                    bytes().subspan(index * tensor_bytes, tensor_bytes)};
}

absl::StatusOr<Format> FormatOfContent(absl::Span<const std::byte> first_bytes) {
  if (IsNpy(first_bytes)) return Format::kNpy;
  if (IsSafetensors(first_bytes)) return Format::kSafetensors;
  return absl::InvalidArgumentError("it begins neither as .npy nor as .safetensors");
}

}  // namespace swiglu::files
