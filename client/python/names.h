// SPDX-License-Identifier: Apache-2.0
//
// What the module takes from Python: names of NumPy, and the exceptions and tuples of
// swiglu/_types.py.
#pragma once

#include <pybind11/pybind11.h>

#include "absl/status/status.h"

namespace swiglu::python {

namespace py = pybind11;

// Lives until the process ends, because nothing may be released after the interpreter has ended.
struct Names {
  py::object ndarray;            // numpy.ndarray
  py::object empty;              // numpy.empty
  py::object asarray;            // numpy.asarray
  py::object ascontiguousarray;  // numpy.ascontiguousarray
  py::object float16;            // numpy.dtype("float16")
  py::object float32;            // numpy.dtype("float32")
  py::object types;              // swiglu._types
  py::str dtype;                 // "dtype", the name of an attribute
};

// Imports the modules. Call it once, before GetNames, with the GIL.
void LoadNames();
const Names& GetNames();

// Creates `name` of swiglu._types, a named tuple.
template <typename... Fields>
py::object MakeTuple(const char* name, Fields&&... fields) {
  return GetNames().types.attr(name)(std::forward<Fields>(fields)...);
}

// The exception for `status`, which is not OK. Needs the GIL.
py::object ToException(const absl::Status& status);
// Throws it, for Python to catch.
[[noreturn]] void Throw(const absl::Status& status);
// Throws it unless `status` is OK.
void ThrowUnlessOk(const absl::Status& status);

}  // namespace swiglu::python
