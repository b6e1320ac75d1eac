// SPDX-License-Identifier: Apache-2.0
//
// The tensors that the client library takes and returns: a dtype, a shape and bytes. The bytes are
// row-major, contiguous and little-endian. `TensorView` borrows them, `Tensor` owns them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "swiglu/dtype.h"

namespace swiglu::client {

using swiglu::Dtype;
using swiglu::ElementBytes;

// The name of `dtype` in the protocol: `FP16`, `BF16` or `FP32`.
absl::string_view DatatypeName(Dtype dtype);

// The dtype that the protocol calls `name`. nullopt if `name` is not FP16, BF16 or FP32.
absl::optional<Dtype> ParseDatatype(absl::string_view name);

// Dimensions, outermost first. A tensor with an empty shape has one element.
using Shape = std::vector<int64_t>;

// The shape as error messages show it, for example `[2,1024,11008]`. Shows 16 dimensions at most.
std::string FormatShape(absl::Span<const int64_t> shape);

// The size, in bytes, of a tensor of this dtype and shape. INVALID_ARGUMENT, with `name` in the
// message, if the dtype is not FP16, BF16 or FP32, if a dimension is negative, or if the size
// exceeds 2^63 - 1.
absl::StatusOr<int64_t> TensorBytes(absl::string_view name, Dtype dtype,
                                    absl::Span<const int64_t> shape);

// A tensor that borrows its bytes. The bytes need no alignment. Copying the view copies no bytes.
struct TensorView {
  Dtype dtype = Dtype::kFp32;
  Shape shape;
  absl::Span<const std::byte> bytes;
};

// A tensor that owns its bytes. Move-only. A tensor that was moved from equals a
// default-constructed one. Not thread-safe.
class Tensor {
 public:
  // An FP32 tensor without elements, of shape [0].
  Tensor() = default;

  // A tensor of `size_bytes` uninitialised bytes.
  // REQUIRES: `size_bytes` is what `TensorBytes` returns for `dtype` and `shape`.
  Tensor(Dtype dtype, Shape shape, int64_t size_bytes);

  // Takes the bytes of `other`.
  Tensor(Tensor&& other) noexcept { Swap(other); }
  Tensor& operator=(Tensor&& other) noexcept {
    Tensor taken(std::move(other));
    Swap(taken);
    return *this;
  }

  // What the tensor is, and its bytes.
  Dtype dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  absl::Span<const std::byte> bytes() const { return {bytes_.get(), size_bytes_}; }
  absl::Span<std::byte> mutable_bytes() { return {bytes_.get(), size_bytes_}; }

  // A view of this tensor, to pass as an input. The view is valid while the tensor lives.
  TensorView view() const { return {dtype_, shape_, bytes()}; }

 private:
  void Swap(Tensor& other) noexcept {
    std::swap(dtype_, other.dtype_);
    shape_.swap(other.shape_);
    std::swap(size_bytes_, other.size_bytes_);
    bytes_.swap(other.bytes_);
  }

  Dtype dtype_ = Dtype::kFp32;
  Shape shape_ = {0};
  size_t size_bytes_ = 0;
  std::unique_ptr<std::byte[]> bytes_;
};

}  // namespace swiglu::client
