// SPDX-License-Identifier: Apache-2.0
//
// Tensors in arrays of C++ types, without a copy: `View(values, {4, 1000})` of a
// `std::vector<float>` is an input of a call, and `MutableBytes(values)` an output.
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

// The dtype of the elements of a range. Does not compile if a tensor has no such elements.
template <ElementRange Range>
constexpr Dtype ElementDtype() {
  using Element = std::ranges::range_value_t<Range>;
  static_assert(sizeof(Element) == ElementBytes(DtypeOf<Element>::value));
  static_assert(std::is_trivially_copyable_v<Element>);
  return DtypeOf<Element>::value;
}

// The bytes of `elements`, as an output of a call.
template <MutableElementRange Range>
absl::Span<std::byte> MutableBytes(Range&& elements) {
  constexpr auto kSize = static_cast<size_t>(ElementBytes(ElementDtype<Range>()));
  return {reinterpret_cast<std::byte*>(std::ranges::data(elements)),
          std::ranges::size(elements) * kSize};
}

// A view of `elements`, which must outlive it. The call checks that the shape has as many elements.
template <ElementRange Range>
TensorView View(Range&& elements, Shape shape) {
  constexpr auto kSize = static_cast<size_t>(ElementBytes(ElementDtype<Range>()));
  return {ElementDtype<Range>(),
          std::move(shape),
          {reinterpret_cast<const std::byte*>(std::ranges::data(elements)),
           std::ranges::size(elements) * kSize}};
}

// The same, of rank 1.
template <ElementRange Range>
TensorView View(Range&& elements) {
  return View(elements, {static_cast<int64_t>(std::ranges::size(elements))});
}

}  // namespace swiglu::client
