// SPDX-License-Identifier: Apache-2.0
//
// Python's arrays as tensors, without a copy: NumPy's, those of ml_dtypes included, PyTorch's, and
// what has DLPack, the buffer protocol or the array interface.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "swiglu/tensor.h"

namespace swiglu::python {

namespace py = pybind11;

// The memory of a Python object. It keeps the object alive and its memory in place. Move-only.
// Everything needs the GIL, except reading what the accessors return.
class Array {
 public:
  // What results are made as.
  enum class Kind { kNumpy, kTorch };

  Array() = default;
  Array(Array&& other) noexcept { Swap(other); }
  Array& operator=(Array&& other) noexcept {
    Array taken(std::move(other));
    Swap(taken);
    return *this;
  }
  ~Array();

  // `object` as the tensor `name` that a call reads. An array that is not contiguous is copied.
  // Throws TypeError if it is no array, or one of another dtype.
  static Array Input(const py::object& object, const char* name);

  // `object` as the tensor `name` that a call writes. Throws TypeError likewise, and ValueError if
  // it is not contiguous or not writable.
  static Array Output(const py::object& object, const char* name);

  // A new array of the same kind, dtype and shape, to write to.
  py::object NewLikeThis() const;

  // An array of the same kind with the memory of `tensor`.
  py::object Wrap(client::Tensor tensor) const;

  client::Dtype dtype() const { return dtype_; }
  const client::Shape& shape() const { return shape_; }
  // The GPU whose memory it is; -1: it is memory of the host.
  int gpu() const { return gpu_; }
  bool is_on_gpu() const { return gpu_ >= 0; }
  // The stream of that GPU whose work comes before the array may be used.
  uintptr_t stream() const { return stream_; }
  absl::Span<std::byte> bytes() const { return {data_, size_bytes_}; }

 private:
  enum class Access { kRead, kWrite };

  static Array Make(const py::object& object, const char* name, Access access);
  // Each reads one kind of object. Returns whether the array is contiguous.
  bool ReadNumpy(const py::object& object, const char* name, Access access);
  bool ReadTorch(const py::object& object, const char* name);
  bool ReadDlpack(const py::object& object, const char* name, Access access);
  bool ReadCapsule(const char* name, Access access);

  void Swap(Array& other) noexcept;

  py::object object_;  // the caller's, or the copy of it
  py::object owner_;   // a capsule of DLPack, which owns the memory
  Py_buffer view_ = {};
  Kind kind_ = Kind::kNumpy;
  client::Dtype dtype_ = client::Dtype::kFp32;
  client::Shape shape_;
  std::byte* data_ = nullptr;
  size_t size_bytes_ = 0;
  int gpu_ = -1;
  uintptr_t stream_ = 0;
};

}  // namespace swiglu::python
