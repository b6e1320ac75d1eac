// SPDX-License-Identifier: Apache-2.0
//
// The structs of DLPack 1, by which libraries of arrays show each other their memory without a
// copy. Their layout is part of the standard.
#pragma once

#include <cstdint>

namespace swiglu::python {

struct DlpackDevice {
  int32_t type;
  int32_t number;
};
inline constexpr int32_t kDlpackCpu = 1;
inline constexpr int32_t kDlpackCuda = 2;
inline constexpr int32_t kDlpackCudaHost = 3;
// The legacy default stream of CUDA: as an argument of __dlpack__, and as the handle of a stream.
inline constexpr int kDlpackDefaultStream = 1;

struct DlpackDtype {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};
inline constexpr uint8_t kDlpackFloat = 2;
inline constexpr uint8_t kDlpackBfloat = 4;

struct DlpackTensor {
  void* data;
  DlpackDevice device;
  int32_t num_dims;
  DlpackDtype dtype;
  int64_t* shape;
  int64_t* strides;  // in elements; nullptr: contiguous
  uint64_t byte_offset;
};

// What a capsule with the name "dltensor" points to.
struct DlpackManaged {
  DlpackTensor tensor;
  void* context;
  void (*deleter)(DlpackManaged* self);
};

// What a capsule with the name "dltensor_versioned" points to.
struct DlpackVersioned {
  uint32_t major;
  uint32_t minor;
  void* context;
  void (*deleter)(DlpackVersioned* self);
  uint64_t flags;
  DlpackTensor tensor;
};
inline constexpr uint64_t kDlpackReadOnly = 1;

}  // namespace swiglu::python
