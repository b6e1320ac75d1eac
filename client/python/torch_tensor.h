// SPDX-License-Identifier: Apache-2.0
//
// Tensors of PyTorch, by a DLPack capsule that PyTorch's C++ code makes. Tensor.__dlpack__ gives
// the same, but is Python code that takes tens of microseconds for a tensor on a GPU.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

namespace swiglu::python {

namespace py = pybind11;

// Whether `object` is a tensor of PyTorch. Does not import PyTorch. Needs the GIL.
bool IsTorchTensor(const py::object& object);

// A "dltensor" capsule of the tensor `name` of a call. Throws TypeError for a layout that calls do
// not take or a tensor that PyTorch cannot give, and ValueError for one that requires a gradient.
// Needs the GIL.
py::object MakeTorchCapsule(const py::object& object, const char* name);

// The handle of PyTorch's current stream of a GPU. Needs the GIL.
uintptr_t CurrentTorchStream(int gpu);

// Whether a tensor's elements are the negatives of what is in its memory. Needs the GIL.
bool IsNegated(const py::object& object);

}  // namespace swiglu::python
