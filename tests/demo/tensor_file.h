// SPDX-License-Identifier: Apache-2.0
//
// The few file formats of the demonstration, read and written in the simplest way: 16-bit tensors
// in .npy and .safetensors. Apart from the client's readers on purpose, so that a fault there does
// not hide here.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/demo/narrow_float.h"

namespace swiglu::demo {

// A tensor as a file holds it.
struct FileTensor {
  NarrowFloat format;
  std::vector<int64_t> shape;
  std::vector<uint16_t> values;
};

// What cannot be read or written, in words.
struct FileError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Reads "FILE.npy" (FP16), or "FILE.safetensors:TENSOR" (FP16 or BF16). Throws FileError.
FileTensor ReadTensor(const std::string& name);

// Writes an FP16 tensor as .npy. Throws FileError.
void WriteNpy(const std::string& path, const std::vector<int64_t>& shape,
              const std::vector<uint16_t>& values);

}  // namespace swiglu::demo
