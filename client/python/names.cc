// SPDX-License-Identifier: Apache-2.0
//
// Imports what the module needs.
#include "client/python/names.h"

#include <string>

namespace swiglu::python {
namespace {

const Names* names = nullptr;

}  // namespace

void LoadNames() {
  const py::module_ numpy = py::module_::import("numpy");
  const py::object dtype = numpy.attr("dtype");
  names = new Names{numpy.attr("ndarray"),
                    numpy.attr("empty"),
                    numpy.attr("asarray"),
                    numpy.attr("ascontiguousarray"),
                    dtype("float16"),
                    dtype("float32"),
                    py::module_::import("swiglu._types"),
                    py::str("dtype")};
}

const Names& GetNames() { return *names; }

py::object ToException(const absl::Status& status) {
  const std::string message(status.message());
  return GetNames().types.attr("make_error")(static_cast<int>(status.code()), message);
}

void Throw(const absl::Status& status) {
  const py::object exception = ToException(status);
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.ptr())), exception.ptr());
  throw py::error_already_set();
}

void ThrowUnlessOk(const absl::Status& status) {
  if (!status.ok()) Throw(status);
}

}  // namespace swiglu::python
