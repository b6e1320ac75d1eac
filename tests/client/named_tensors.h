// SPDX-License-Identifier: Apache-2.0
//
// Short forms of reading and making tensor files, for tests.
#pragma once

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/files/safetensors.h"
#include "client/files/tensor_file.h"
#include "client/files/tensor_format.h"
#include "swiglu/tensor.h"
#include "tests/client/bytes.h"

namespace swiglu {

// The bytes of a .safetensors file with one tensor.
inline std::string SafetensorsFile(absl::string_view name, client::Dtype dtype,
                                   const client::Shape& shape, absl::string_view data) {
  const files::NamedTensor tensor{name, {dtype, shape, AsBytes(data)}};
  return files::SafetensorsHeader({&tensor, 1}) + std::string(data);
}

// A file, and a tensor in it.
struct OpenedTensor {
  files::TensorFile file;
  client::TensorView tensor;
};

// Opens what `name` names: FILE or FILE:TENSOR.
inline absl::StatusOr<OpenedTensor> OpenTensor(absl::string_view name) {
  const files::TensorName parts = files::SplitTensorName(name);
  absl::StatusOr<files::TensorFile> file = files::TensorFile::Open(parts.path);
  if (!file.ok()) return file.status();
  absl::StatusOr<client::TensorView> tensor = file->Find(parts.tensor);
  if (!tensor.ok()) return tensor.status();
  return OpenedTensor{*std::move(file), *std::move(tensor)};
}

}  // namespace swiglu
