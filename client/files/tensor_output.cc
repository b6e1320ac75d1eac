// SPDX-License-Identifier: Apache-2.0
//
// Makes the header of a format, and hands it on with the tensors' bytes.
#include "client/files/tensor_output.h"

#include <cstddef>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/files/npy.h"
#include "client/files/standard_streams.h"

namespace swiglu::files {
namespace {

using WriteBytes = absl::FunctionRef<absl::Status(absl::Span<const std::byte>)>;

// The bytes that come before those of the tensors.
absl::StatusOr<std::string> Header(Format format, absl::Span<const NamedTensor> tensors) {
  switch (format) {
    case Format::kNpy:
      return NpyHeader(tensors[0].tensor.dtype, tensors[0].tensor.shape);
    case Format::kSafetensors:
      return SafetensorsHeader(tensors);
    case Format::kRaw:
      break;
  }
  return std::string();
}

// Makes the header, or says in an error about `name` why the format does not hold the tensors.
absl::StatusOr<std::string> CheckedHeader(absl::string_view name, Format format,
                                          absl::Span<const NamedTensor> tensors) {
  const absl::Status status = CheckFormatHolds(format, tensors[0].tensor.dtype, tensors.size());
  if (status.ok()) return Header(format, tensors);
  return absl::InvalidArgumentError(absl::StrCat(name, ": ", status.message()));
}

absl::Status WriteAll(absl::string_view header, absl::Span<const NamedTensor> tensors,
                      WriteBytes write) {
  absl::Status status = write({reinterpret_cast<const std::byte*>(header.data()), header.size()});
  for (const NamedTensor& named : tensors) {
    if (status.ok()) status = write(named.tensor.bytes);
  }
  return status;
}

}  // namespace

OutputFile::Created WriteTensors(const std::string& path, absl::Span<const NamedTensor> tensors,
                                 IfExists if_exists, UnfinishedFiles* unfinished) {
  const absl::StatusOr<Format> format = FormatOf(path);
  if (!format.ok()) return format.status();
  const absl::StatusOr<std::string> header = CheckedHeader(path, *format, tensors);
  if (!header.ok()) return header.status();
  OutputFile::Created file = OutputFile::Create(path, if_exists, unfinished);
  if (!file.ok()) return file.status();
  absl::Status status = WriteAll(*header, tensors, [&file](absl::Span<const std::byte> bytes) {
    return (*file)->Write(bytes);
  });
  if (status.ok()) status = (*file)->Sync();
  if (!status.ok()) return status;
  return file;
}

absl::Status WriteTensorsToStandardOutput(Format format, absl::Span<const NamedTensor> tensors) {
  const absl::StatusOr<std::string> header = CheckedHeader("stdout", format, tensors);
  if (!header.ok()) return header.status();
  return WriteAll(*header, tensors, WriteStandardOutput);
}

}  // namespace swiglu::files
