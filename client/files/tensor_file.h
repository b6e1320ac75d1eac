// SPDX-License-Identifier: Apache-2.0
//
// Opens tensor files by their names: FILE or FILE:TENSOR. The extension tells the format: .npy or
// .safetensors.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/files/mapped_file.h"
#include "client/files/output_file.h"
#include "client/files/unfinished_files.h"
#include "swiglu/tensor.h"

namespace swiglu::files {

enum class Format { kNpy, kSafetensors };

// `.npy` or `.safetensors`.
absl::string_view Extension(Format format);

// The format that the extension of `path` names. INVALID_ARGUMENT for any other extension.
absl::StatusOr<Format> FormatOf(absl::string_view path);

// OK if a file of that format can hold that dtype, INVALID_ARGUMENT if not.
absl::Status CheckFormatHolds(Format format, client::Dtype dtype);

// A tensor in a mapped file. Move-only.
class TensorFile {
 public:
  // Opens what `spec` names: FILE, or FILE:TENSOR for a .safetensors file. FILE ends at the first
  // `.npy:` or `.safetensors:`. Errors are one sentence each and name the file.
  static absl::StatusOr<TensorFile> Open(absl::string_view spec);

  // Valid while this object, or the one that it is moved to, lives.
  const client::TensorView& tensor() const { return tensor_; }
  Format format() const { return format_; }
  const MappedFile& file() const { return *file_; }

 private:
  TensorFile(std::unique_ptr<MappedFile> file, client::TensorView tensor, Format format)
      : file_(std::move(file)), tensor_(std::move(tensor)), format_(format) {}

  std::unique_ptr<MappedFile> file_;
  client::TensorView tensor_;
  Format format_;
};

// Writes `tensor` to a new file, in the format of `path`'s extension, and makes it durable; in a
// .safetensors file it is called `name`. The file has its name only after OutputFile::Commit.
// `unfinished` outlives what is returned.
OutputFile::Created WriteTensor(const std::string& path, absl::string_view name,
                                const client::TensorView& tensor, IfExists if_exists,
                                UnfinishedFiles* unfinished);

}  // namespace swiglu::files
