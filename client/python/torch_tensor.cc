// SPDX-License-Identifier: Apache-2.0
//
// What PyTorch has for tensors, found once.
#include "client/python/torch_tensor.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace swiglu::python {
namespace {

// What is needed of the module torch. Never destroyed, like Names.
struct Torch {
  py::object tensor;
  py::object strided;
  py::object to_dlpack;
  py::object current_stream;  // gives the handle of a GPU's current stream
  // Names of attributes.
  py::str layout{"layout"};
  py::str requires_grad{"requires_grad"};
  py::str is_neg{"is_neg"};

  explicit Torch(const py::object& torch)
      : tensor(torch.attr("Tensor")),
        strided(torch.attr("strided")),
        to_dlpack(py::module_::import("torch.utils.dlpack").attr("to_dlpack")) {
    // The fast form of torch.cuda.current_stream(gpu).cuda_stream, where PyTorch has it.
    current_stream = py::getattr(torch.attr("_C"), "_cuda_getCurrentRawStream", py::none());
    if (!current_stream.is_none()) return;
    const py::object stream = torch.attr("cuda").attr("current_stream");
    current_stream =
        py::cpp_function([stream](int gpu) { return stream(gpu).attr("cuda_stream"); });
  }
};

// nullptr as long as nobody has imported PyTorch.
const Torch* FindTorch() {
  // The GIL guards it.
  static const Torch* torch = nullptr;
  if (torch != nullptr) return torch;
  PyObject* const module = PyDict_GetItemString(PyImport_GetModuleDict(), "torch");
  // A module that is being imported does not have all of its names yet.
  if (module == nullptr || PyObject_HasAttrString(module, "cuda") == 0) return nullptr;
  torch = new Torch(py::reinterpret_borrow<py::object>(module));
  return torch;
}

}  // namespace

bool IsTorchTensor(const py::object& object) {
  const Torch* const torch = FindTorch();
  return torch != nullptr && py::isinstance(object, torch->tensor);
}

py::object MakeTorchCapsule(const py::object& object, const char* name) {
  const Torch& torch = *FindTorch();
  if (!py::getattr(object, torch.layout).is(torch.strided)) {
    throw py::type_error(absl::StrCat("'", name, "' is sparse; a tensor is dense"));
  }
  if (py::getattr(object, torch.requires_grad).ptr() == Py_True) {
    throw py::value_error(absl::StrCat("'", name,
                                       "' requires a gradient, which this call does not give; pass "
                                       "its detach(), or call swiglu.torch.swiglu"));
  }
  try {
    return torch.to_dlpack(object);
  } catch (py::error_already_set& error) {
    // Such as the one of a device without memory, or of a dtype that DLPack does not have.
    if (!error.matches(PyExc_RuntimeError) && !error.matches(PyExc_BufferError)) throw;
    throw py::type_error(
        absl::StrCat("'", name, "' cannot be taken: ", py::str(error.value()).cast<std::string>()));
  }
}

uintptr_t CurrentTorchStream(int gpu) { return FindTorch()->current_stream(gpu).cast<uintptr_t>(); }

bool IsNegated(const py::object& object) {
  return py::getattr(object, FindTorch()->is_neg)().ptr() == Py_True;
}

}  // namespace swiglu::python
