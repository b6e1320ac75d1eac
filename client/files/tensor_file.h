// SPDX-License-Identifier: Apache-2.0
//
// Opens files with tensors, and finds the tensors in them.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "client/files/mapped_file.h"
#include "client/files/stream_bytes.h"
#include "client/files/tensor_format.h"
#include "swiglu/tensor.h"

namespace swiglu::files {

// The tensors of a raw file: so many, all alike.
struct RawTensors {
  client::Dtype dtype;
  client::Shape shape;
  size_t num_tensors = 1;
};

// The bytes that a raw file with these tensors has. INVALID_ARGUMENT if they exceed 2^63 - 1.
// REQUIRES: no dimension is negative.
absl::StatusOr<int64_t> RawBytes(const RawTensors& tensors);

// A file with tensors: one that is mapped, or what a stream gave. Move-only. Errors are one
// sentence each and begin with the file's name.
class TensorFile {
 public:
  // Maps the file at `path`. Its extension tells the format.
  static absl::StatusOr<TensorFile> Open(const std::string& path);

  // A file whose bytes came through a stream. Errors call it `name`.
  TensorFile(std::string name, StreamBytes stream, Format format)
      : name_(std::move(name)), stream_(std::move(stream)), format_(format) {}

  Format format() const { return format_; }
  // The mapped file; nullptr if the bytes came through a stream.
  const MappedFile* mapped() const { return mapped_.get(); }
  // The bytes that came through a stream; 0 if the file is mapped.
  size_t stream_size_bytes() const { return stream_.bytes().size(); }

  // The tensor called `tensor`, or the only one if `tensor` is empty. A .npy file has one tensor
  // without a name. The tensor is valid while this object, or one that it was moved to, lives.
  // REQUIRES: the format is not kRaw, or `tensor` is not empty.
  absl::StatusOr<client::TensorView> Find(absl::string_view tensor) const;

  // Tensor `index` of a raw file with these tensors, valid as that of Find. INVALID_ARGUMENT if the
  // file has not exactly their bytes. REQUIRES: the format is kRaw, `index` is below `num_tensors`.
  absl::StatusOr<client::TensorView> FindRaw(const RawTensors& tensors, size_t index) const;

 private:
  TensorFile(std::string name, std::unique_ptr<MappedFile> mapped, Format format)
      : name_(std::move(name)), mapped_(std::move(mapped)), format_(format) {}

  absl::Span<const std::byte> bytes() const { return mapped_ ? mapped_->bytes() : stream_.bytes(); }

  std::string name_;
  std::unique_ptr<MappedFile> mapped_;
  StreamBytes stream_;  // empty if the file is mapped
  Format format_;
};

// By so many of its first bytes a file shows its format.
inline constexpr size_t kFormatBytes = 9;

// The format of a file that begins with these kFormatBytes bytes or, if it is shorter, has only
// these: kNpy or kSafetensors. INVALID_ARGUMENT if it is neither.
absl::StatusOr<Format> FormatOfContent(absl::Span<const std::byte> first_bytes);

}  // namespace swiglu::files
