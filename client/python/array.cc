// SPDX-License-Identifier: Apache-2.0
//
// NumPy's arrays by the buffer protocol, which is the fastest, and all others by DLPack.
#include "client/python/array.h"

#include <iterator>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "client/python/dlpack.h"
#include "client/python/names.h"
#include "client/python/torch_tensor.h"

namespace swiglu::python {
namespace {

using client::Dtype;
using client::ElementBytes;

std::string TypeName(py::handle object) { return Py_TYPE(object.ptr())->tp_name; }

// dtype objects are mostly the same ones each time.
absl::optional<Dtype> DtypeOfNumpy(const py::object& dtype) {
  // That of ml_dtypes, once an array had it. The GIL guards it.
  static PyObject* bfloat16 = nullptr;
  const Names& names = GetNames();
  if (dtype.ptr() == bfloat16) return Dtype::kBf16;
  if (dtype.is(names.float32)) return Dtype::kFp32;
  if (dtype.is(names.float16)) return Dtype::kFp16;
  const auto name = py::str(dtype.attr("name")).cast<std::string>();
  if (!dtype.attr("isnative").cast<bool>()) return absl::nullopt;
  if (name == "bfloat16") {
    if (bfloat16 == nullptr) bfloat16 = py::object(dtype).release().ptr();
    return Dtype::kBf16;
  }
  if (name == "float32") return Dtype::kFp32;
  if (name == "float16") return Dtype::kFp16;
  return absl::nullopt;
}

absl::optional<Dtype> DtypeOfDlpack(const DlpackDtype& dtype) {
  if (dtype.lanes != 1) return absl::nullopt;
  if (dtype.code == kDlpackBfloat && dtype.bits == 16) return Dtype::kBf16;
  if (dtype.code == kDlpackFloat && dtype.bits == 16) return Dtype::kFp16;
  if (dtype.code == kDlpackFloat && dtype.bits == 32) return Dtype::kFp32;
  return absl::nullopt;
}

[[noreturn]] void ThrowForDtype(const char* name, const std::string& dtype) {
  throw py::type_error(absl::StrCat("dtype of '", name, "' is ", dtype,
                                    "; a tensor is float16, bfloat16 or float32"));
}

// The numpy.dtype of a dtype.
py::object ToNumpyDtype(Dtype dtype) {
  const Names& names = GetNames();
  if (dtype == Dtype::kFp32) return names.float32;
  if (dtype == Dtype::kFp16) return names.float16;
  return py::module_::import("numpy").attr("dtype")(
      py::module_::import("ml_dtypes").attr("bfloat16"));
}

py::object ToTorchDtype(Dtype dtype) {
  const char* const name =
      dtype == Dtype::kFp32 ? "float32" : (dtype == Dtype::kFp16 ? "float16" : "bfloat16");
  return py::module_::import("torch").attr(name);
}

py::tuple ToTuple(const client::Shape& shape) {
  py::tuple tuple(shape.size());
  for (size_t i = 0; i < shape.size(); ++i) tuple[i] = shape[i];
  return tuple;
}

// The capsule of an array. An array on a GPU is made to wait for by the default stream.
py::object AskForCapsule(const py::object& object, bool is_on_gpu) {
  const py::object method = object.attr("__dlpack__");
  py::dict arguments;
  if (is_on_gpu) arguments["stream"] = kDlpackDefaultStream;
  try {
    return method(**arguments, py::arg("max_version") = py::make_tuple(1, 0));
  } catch (py::error_already_set& error) {
    // Old libraries do not know versions.
    if (!error.matches(PyExc_TypeError)) throw;
  }
  return method(**arguments);
}

void CheckDevice(int32_t type, const char* name) {
  if (type == kDlpackCpu || type == kDlpackCudaHost || type == kDlpackCuda) return;
  throw py::type_error(absl::StrCat("'", name, "' is on a device of type ", type,
                                    " of DLPack, neither on the host nor on a GPU of CUDA"));
}

bool IsContiguous(const DlpackTensor& tensor) {
  if (tensor.strides == nullptr) return true;
  int64_t stride = 1;
  bool is_contiguous = true;
  for (int i = tensor.num_dims - 1; i >= 0; --i) {
    if (tensor.shape[i] == 0) return true;
    if (tensor.shape[i] != 1 && tensor.strides[i] != stride) is_contiguous = false;
    stride *= tensor.shape[i];
  }
  return is_contiguous;
}

// Memory that the library has allocated, for NumPy or PyTorch to look into.
struct TensorOwner {
  client::Tensor tensor;
};

}  // namespace

Array::~Array() {
  if (view_.obj != nullptr) PyBuffer_Release(&view_);
}

void Array::Swap(Array& other) noexcept {
  std::swap(object_, other.object_);
  std::swap(owner_, other.owner_);
  std::swap(view_, other.view_);
  std::swap(kind_, other.kind_);
  std::swap(dtype_, other.dtype_);
  shape_.swap(other.shape_);
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  std::swap(gpu_, other.gpu_);
  std::swap(stream_, other.stream_);
}

Array Array::Input(const py::object& object, const char* name) {
  return Make(object, name, Access::kRead);
}

Array Array::Output(const py::object& object, const char* name) {
  return Make(object, name, Access::kWrite);
}

Array Array::Make(const py::object& object, const char* name, Access access) {
  const Names& names = GetNames();
  Array array;
  array.object_ = object;
  bool is_contiguous = false;
  if (py::isinstance(object, names.ndarray)) {
    is_contiguous = array.ReadNumpy(object, name, access);
  } else if (IsTorchTensor(object)) {
    is_contiguous = array.ReadTorch(object, name);
  } else if (py::hasattr(object, "__dlpack__")) {
    is_contiguous = array.ReadDlpack(object, name, access);
  } else if (PyObject_CheckBuffer(object.ptr()) || py::hasattr(object, "__array_interface__")) {
    return Make(names.asarray(object), name, access);
  } else {
    throw py::type_error(
        absl::StrCat("'", name, "' is of type ", TypeName(object), ", which is no array"));
  }
  if (is_contiguous) return array;
  if (access == Access::kWrite) {
    throw py::value_error(absl::StrCat("'", name, "' is not contiguous, so it cannot be written"));
  }
  if (array.kind_ == Kind::kTorch) {
    // contiguous() alone keeps a lazy negation.
    return Make(object.attr("resolve_neg")().attr("contiguous")(), name, access);
  }
  if (py::isinstance(object, names.ndarray)) {
    return Make(names.ascontiguousarray(object), name, access);
  }
  throw py::value_error(absl::StrCat("'", name, "' is not contiguous"));
}

bool Array::ReadNumpy(const py::object& object, const char* name, Access access) {
  const auto dtype = py::getattr(object, GetNames().dtype);
  const absl::optional<Dtype> known = DtypeOfNumpy(dtype);
  if (!known) ThrowForDtype(name, py::str(dtype));
  dtype_ = *known;
  // Without the format, which NumPy does not have for the dtypes of others.
  const int flags = access == Access::kWrite ? PyBUF_STRIDES | PyBUF_WRITABLE : PyBUF_STRIDES;
  if (PyObject_GetBuffer(object.ptr(), &view_, flags) != 0) throw py::error_already_set();
  data_ = static_cast<std::byte*>(view_.buf);
  size_bytes_ = static_cast<size_t>(view_.len);
  shape_.assign(view_.shape, view_.shape + view_.ndim);
  return PyBuffer_IsContiguous(&view_, 'C') != 0;
}

bool Array::ReadTorch(const py::object& object, const char* name) {
  kind_ = Kind::kTorch;
  owner_ = MakeTorchCapsule(object, name);
  const bool is_contiguous = ReadCapsule(name, Access::kRead);
  if (is_on_gpu()) stream_ = CurrentTorchStream(gpu_);
  return is_contiguous && !IsNegated(object);
}

bool Array::ReadDlpack(const py::object& object, const char* name, Access access) {
  const auto device = object.attr("__dlpack_device__")().cast<py::tuple>();
  const auto type = py::int_(device[0]).cast<int32_t>();
  CheckDevice(type, name);
  if (type == kDlpackCuda) {
    gpu_ = py::int_(device[1]).cast<int>();
    stream_ = kDlpackDefaultStream;
  }
  owner_ = AskForCapsule(object, is_on_gpu());
  return ReadCapsule(name, access);
}

bool Array::ReadCapsule(const char* name, Access access) {
  const DlpackTensor* tensor = nullptr;
  bool is_read_only = false;
  if (PyCapsule_IsValid(owner_.ptr(), "dltensor_versioned") != 0) {
    const auto* managed =
        static_cast<DlpackVersioned*>(PyCapsule_GetPointer(owner_.ptr(), "dltensor_versioned"));
    is_read_only = (managed->flags & kDlpackReadOnly) != 0;
    tensor = &managed->tensor;
  } else {
    void* const managed = PyCapsule_GetPointer(owner_.ptr(), "dltensor");
    if (managed == nullptr) throw py::error_already_set();
    tensor = &static_cast<DlpackManaged*>(managed)->tensor;
  }
  CheckDevice(tensor->device.type, name);
  if (is_read_only && access == Access::kWrite) {
    throw py::value_error(absl::StrCat("'", name, "' is read-only"));
  }
  const absl::optional<Dtype> known = DtypeOfDlpack(tensor->dtype);
  if (!known) {
    ThrowForDtype(name, absl::StrCat("of code ", tensor->dtype.code, " of DLPack and of ",
                                     tensor->dtype.bits, " bits"));
  }
  dtype_ = *known;
  if (tensor->device.type == kDlpackCuda) gpu_ = tensor->device.number;
  shape_.assign(tensor->shape, tensor->shape + tensor->num_dims);
  data_ = static_cast<std::byte*>(tensor->data) + tensor->byte_offset;
  int64_t num_elements = 1;
  for (const int64_t dim : shape_) num_elements *= dim;
  size_bytes_ = static_cast<size_t>(num_elements * ElementBytes(dtype_));
  return IsContiguous(*tensor);
}

py::object Array::NewLikeThis() const {
  if (kind_ == Kind::kTorch) return object_.attr("new_empty")(object_.attr("shape"));
  const Names& names = GetNames();
  const bool is_numpy = py::isinstance(object_, names.ndarray);
  const py::tuple shape = ToTuple(shape_);
  const py::object dtype = is_numpy ? py::getattr(object_, names.dtype) : ToNumpyDtype(dtype_);
  // Without the tuple of arguments that a call by pybind11 makes.
  PyObject* const arguments[] = {shape.ptr(), dtype.ptr()};
  auto made = py::reinterpret_steal<py::object>(
      PyObject_Vectorcall(names.empty.ptr(), arguments, std::size(arguments), nullptr));
  if (!made) throw py::error_already_set();
  return made;
}

py::object Array::Wrap(client::Tensor tensor) const {
  const Dtype dtype = tensor.dtype();
  const py::tuple shape = ToTuple(tensor.shape());
  const absl::Span<std::byte> bytes = tensor.mutable_bytes();
  const bool is_empty = bytes.empty();
  auto* const owner = new TensorOwner{std::move(tensor)};
  const py::capsule capsule(owner,
                            [](void* pointer) { delete static_cast<TensorOwner*>(pointer); });
  if (is_empty) return GetNames().empty(shape, ToNumpyDtype(dtype));
  // NumPy takes the memory of what has an array interface, and keeps it.
  const py::object shown = GetNames().types.attr("Memory")(
      reinterpret_cast<uintptr_t>(bytes.data()), bytes.size(), capsule);
  const py::object raw = GetNames().asarray(shown);
  if (kind_ == Kind::kTorch) {
    return py::module_::import("torch")
        .attr("from_numpy")(raw)
        .attr("view")(ToTorchDtype(dtype))
        .attr("reshape")(shape);
  }
  return raw.attr("view")(ToNumpyDtype(dtype)).attr("reshape")(shape);
}

}  // namespace swiglu::python
