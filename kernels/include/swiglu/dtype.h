// SPDX-License-Identifier: Apache-2.0
//
// The element types of SwiGLU, shared by the kernels, the client library and the server.
#pragma once

#include <cstdint>

namespace swiglu {

// The type of every element of a tensor. The numbers are stable: they may cross a C interface.
enum class Dtype : int {
  kFp16 = 0,  // IEEE 754 binary16
  kBf16 = 1,  // bfloat16
  kFp32 = 2,  // IEEE 754 binary32
};

// The size of one element in bytes.
constexpr int64_t ElementBytes(Dtype dtype) { return dtype == Dtype::kFp32 ? 4 : 2; }

}  // namespace swiglu
