// SPDX-License-Identifier: Apache-2.0
//
// Opens tensor files, named as FILE or FILE:TENSOR, and writes them. The extension of FILE, .npy or
// .safetensors, tells the format.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/files/mapped_file.h"
#include "client/files/output_file.h"
#include "client/files/unfinished_files.h"
#include "swiglu/tensor.h"

namespace swiglu::files {

enum class Format { kNpy, kSafetensors };

// The extension of `format`: `.npy` or `.safetensors`.
absl::string_view Extension(Format format);

// The format that the extension of `path` names. INVALID_ARGUMENT for any other extension.
absl::StatusOr<Format> FormatOf(absl::string_view path);

// OK if a file of this format can hold a tensor of this dtype, INVALID_ARGUMENT if not.
absl::Status CheckFormatHolds(Format format, client::Dtype dtype);

// A tensor in a mapped file. Move-only.
struct TensorFile {
  // Opens what `spec` names: FILE, or FILE:TENSOR for a .safetensors file. FILE ends at the first
  // `.npy:` or `.safetensors:`. Errors are one sentence each and name the file.
  static absl::StatusOr<TensorFile> Open(absl::string_view spec);

  std::unique_ptr<MappedFile> file;
  client::TensorView tensor;  // valid while the file lives
  Format format;
};

// Writes `tensor` to a new file, in the format of `path`'s extension, and makes the file durable.
// In a .safetensors file the tensor is called `name`. The file gets its name only from
// OutputFile::Commit. `unfinished` must outlive the returned object.
OutputFile::Created WriteTensor(const std::string& path, absl::string_view name,
                                const client::TensorView& tensor, IfExists if_exists,
                                UnfinishedFiles* unfinished);

}  // namespace swiglu::files
