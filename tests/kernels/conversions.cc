// SPDX-License-Identifier: Apache-2.0
//
// The conversions, compiled once per instruction set.
#include "tests/kernels/conversions.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/kernels/conversions.cc"
#include "hwy/foreach_target.h"
// The order matters: what follows is per instruction set.
#include "hwy/highway.h"
#include "kernels/cpu/narrow_float-inl.h"

HWY_BEFORE_NAMESPACE();
namespace swiglu::internal {
namespace HWY_NAMESPACE {

using FloatTag = hn::ScalableTag<float>;

template <class T>
void WidenAll(const uint16_t* lanes, float* values, size_t num_elements) {
  const FloatTag d;
  for (size_t i = 0; i < num_elements; i += hn::Lanes(d)) {
    hn::StoreU(T::Widen(d, hn::LoadU(HalfTag<FloatTag>(), lanes + i)), d, values + i);
  }
}

template <class T>
void NarrowAll(const float* values, uint16_t* lanes, size_t num_elements) {
  const FloatTag d;
  for (size_t i = 0; i < num_elements; i += hn::Lanes(d)) {
    hn::StoreU(T::Narrow(d, hn::LoadU(d, values + i)), HalfTag<FloatTag>(), lanes + i);
  }
}

template <class T>
void RoundAll(const float* values, float* rounded, size_t num_elements) {
  const FloatTag d;
  for (size_t i = 0; i < num_elements; i += hn::Lanes(d)) {
    hn::StoreU(T::Round(d, hn::LoadU(d, values + i)), d, rounded + i);
  }
}

template <class T>
void ProductAll(const float* a, const float* b, float* products, size_t num_elements) {
  const FloatTag d;
  for (size_t i = 0; i < num_elements; i += hn::Lanes(d)) {
    hn::StoreU(T::Product(d, hn::LoadU(d, a + i), hn::LoadU(d, b + i)), d, products + i);
  }
}

template <class T>
kernels::Conversions AllOf() {
  return {&WidenAll<T>, &NarrowAll<T>, &RoundAll<T>, &ProductAll<T>};
}

kernels::Conversions Choose(Dtype dtype) {
  return dtype == Dtype::kFp16 ? AllOf<Fp16>() : AllOf<Bf16>();
}

}  // namespace HWY_NAMESPACE
}  // namespace swiglu::internal
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace swiglu {
namespace internal {

HWY_EXPORT(Choose);

static kernels::Conversions Dispatch(Dtype dtype) { return HWY_DYNAMIC_DISPATCH(Choose)(dtype); }

}  // namespace internal

kernels::Conversions kernels::ConversionsOf(Dtype dtype) { return internal::Dispatch(dtype); }

}  // namespace swiglu
#endif  // HWY_ONCE
