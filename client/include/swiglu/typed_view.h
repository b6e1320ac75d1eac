// SPDX-License-Identifier: Apache-2.0
//
// Tensors as arrays of C++ types, without a copy: `View(values, {4, 1000})` of a
// `std::vector<float>` is an input of a call, and `MutableBytes(values)` an output.
// `Elements<float>(tensor)` are the elements of a result.
//
// A program says once which dtype the FP16 or BF16 type of a library has, at namespace scope:
//
//   template <>
//   struct swiglu::client::DtypeOf<__nv_bfloat16> : swiglu::client::Bf16Elements {};
#pragma once

#include <cstddef>
#include <cstdint>
#include <ranges>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "swiglu/tensor.h"

namespace swiglu::client {

// What DtypeOf of a type is derived from.
using Fp16Elements = std::integral_constant<Dtype, Dtype::kFp16>;
using Bf16Elements = std::integral_constant<Dtype, Dtype::kBf16>;
using Fp32Elements = std::integral_constant<Dtype, Dtype::kFp32>;

// The dtype of the type T, as `DtypeOf<T>::value`. Of other types a program specialises it.
template <typename T>
struct DtypeOf;

template <>
struct DtypeOf<float> : Fp32Elements {};

// A range that may be borrowed: a vector or an array with a name, or any span. A temporary vector
// is none, because it would be gone before the call has ended.
template <typename Range>
inline constexpr bool kIsBorrowed = std::ranges::borrowed_range<Range>;
template <typename T>
inline constexpr bool kIsBorrowed<absl::Span<T>> = true;
template <typename Range>
concept ElementRange = std::ranges::contiguous_range<Range> && kIsBorrowed<Range>;
template <typename Range>
concept MutableElementRange =
    ElementRange<Range> && std::ranges::output_range<Range, std::ranges::range_value_t<Range>>;

// The dtype of elements of the type T. Does not compile if a tensor has no such elements.
template <typename T>
constexpr Dtype ElementDtype() {
  static_assert(sizeof(T) == ElementBytes(DtypeOf<T>::value));
  static_assert(std::is_trivially_copyable_v<T>);
  return DtypeOf<T>::value;
}

// The same, of the elements of a range.
template <ElementRange Range>
inline constexpr Dtype kRangeDtype = ElementDtype<std::ranges::range_value_t<Range>>();

// The bytes of `elements`, as an output of a call.
template <MutableElementRange Range>
absl::Span<std::byte> MutableBytes(Range&& elements) {
  constexpr auto kSize = static_cast<size_t>(ElementBytes(kRangeDtype<Range>));
  return {reinterpret_cast<std::byte*>(std::ranges::data(elements)),
          std::ranges::size(elements) * kSize};
}

// A view of `elements`, which must outlive it. The call checks that the shape has as many elements.
template <ElementRange Range>
TensorView View(Range&& elements, Shape shape) {
  constexpr auto kSize = static_cast<size_t>(ElementBytes(kRangeDtype<Range>));
  return {kRangeDtype<Range>,
          std::move(shape),
          {reinterpret_cast<const std::byte*>(std::ranges::data(elements)),
           std::ranges::size(elements) * kSize}};
}

// The same, of rank 1.
template <ElementRange Range>
TensorView View(Range&& elements) {
  return View(elements, {static_cast<int64_t>(std::ranges::size(elements))});
}

// OK if the elements of `tensor` are of the type T, else INVALID_ARGUMENT.
template <typename T>
absl::Status CheckElements(const Tensor& tensor) {
  if (tensor.dtype() == ElementDtype<T>()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the tensor's elements are ",
                                                 DatatypeName(tensor.dtype()), ", not ",
                                                 DatatypeName(ElementDtype<T>())));
}

// The elements of `tensor`, which must outlive the span. Errors as CheckElements.
template <typename T>
absl::StatusOr<absl::Span<const T>> Elements(const Tensor& tensor) {
  if (absl::Status status = CheckElements<T>(tensor); !status.ok()) return status;
  const absl::Span<const std::byte> bytes = tensor.bytes();
  return absl::Span<const T>(reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T));
}
// A temporary tensor would be gone before its elements are read.
template <typename T>
void Elements(const Tensor&& temporary) = delete;

// The same, to write to.
template <typename T>
absl::StatusOr<absl::Span<T>> MutableElements(Tensor& tensor) {
  if (absl::Status status = CheckElements<T>(tensor); !status.ok()) return status;
  const absl::Span<std::byte> bytes = tensor.mutable_bytes();
  return absl::Span<T>(reinterpret_cast<T*>(bytes.data()), bytes.size() / sizeof(T));
}

}  // namespace swiglu::client
