// SPDX-License-Identifier: Apache-2.0
//
// What the CUDA kernels owe, element by element on the device: inputs that are functions of their
// index, the contract's arithmetic written out once more, and kernels that fill and compare. Shares
// no code with the kernels.
#pragma once

#include <cstdint>
#include <type_traits>

#include "swiglu/dtype.h"
#include "swiglu/segment.h"

namespace swiglu::kernels::expected {

// ---- What is expected ----

// The element type by its dtype.
template <Dtype kDtype>
using Element = std::conditional_t<kDtype == Dtype::kFp32, uint32_t, uint16_t>;

template <Dtype kDtype>
__device__ inline double Widen(uint32_t bits) {
  if constexpr (kDtype == Dtype::kFp32) return __uint_as_float(bits);
  if constexpr (kDtype == Dtype::kBf16) return __uint_as_float(bits << 16);
  float value;
  asm("{.reg .b16 h; cvt.u16.u32 h, %1; cvt.f32.f16 %0, h;}" : "=f"(value) : "r"(bits));
  return value;
}

// The pattern nearest to `value`, ties to even.
template <Dtype kDtype>
__device__ inline uint32_t Nearest(double value) {
  if constexpr (kDtype == Dtype::kFp32) return __float_as_uint(__double2float_rn(value));
  // To float32 toward zero, with a mark for what was cut off: then the second rounding is right.
  uint32_t bits = __float_as_uint(__double2float_rz(value));
  if (value == value && static_cast<double>(__uint_as_float(bits)) != value) bits |= 1;
  if constexpr (kDtype == Dtype::kBf16) {
    if (value != value) return 0x7FC0;
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
  }
  uint32_t half;
  asm("{.reg .b16 h; cvt.rn.f16.f32 h, %1; cvt.u32.u16 %0, h;}"
      : "=r"(half)
      : "f"(__uint_as_float(bits)));
  return half;
}

template <Dtype kDtype>
__device__ inline uint32_t Product(uint32_t a, uint32_t b) {
  return Nearest<kDtype>(Widen<kDtype>(a) * Widen<kDtype>(b));
}

__device__ inline float ReferenceSigmoid(float e) {
  float u, sigmoid;
  asm("ex2.approx.f32 %0, %1;" : "=f"(u) : "f"(__fmul_rn(0.0f - e, 1.4426950408889634f)));
  asm("div.full.f32 %0, %1, %2;" : "=f"(sigmoid) : "f"(1.0f), "f"(__fadd_rn(1.0f, u)));
  return sigmoid;
}

template <Dtype kDtype>
struct Expected {
  uint32_t h, df, de;
};

// `table` is f of every pattern; nullptr: f comes from the arithmetic.
template <Dtype kDtype>
__device__ inline Expected<kDtype> Expect(uint32_t dw, uint32_t e, uint32_t g,
                                          const uint16_t* table) {
  const auto e32 = static_cast<float>(Widen<kDtype>(e));
  const float se = ReferenceSigmoid(e32);
  const uint32_t f = table != nullptr ? table[e] : Nearest<kDtype>(__fmul_rn(se, e32));
  const auto dg32 = static_cast<float>(Widen<kDtype>(Product<kDtype>(dw, g)));
  const float de = __fmul_rn(__fmul_rn(dg32, se), __fmaf_rn(e32, __fsub_rn(1.0f, se), 1.0f));
  return {Product<kDtype>(f, g), Product<kDtype>(dw, f), Nearest<kDtype>(de)};
}

template <Dtype kDtype>
__device__ inline bool Same(uint32_t a, uint32_t b) {
  const double va = Widen<kDtype>(a), vb = Widen<kDtype>(b);
  return a == b || (va != va && vb != vb);
}

// ---- Inputs as functions of their index ----

// Random patterns: half of them any, half of moderate size.
struct RandomInputs {
  uint64_t seed;

  template <Dtype kDtype>
  __device__ uint32_t At(int tensor, int64_t i) const {
    uint64_t z = (seed + tensor) * 0x9E3779B97F4A7C15 + static_cast<uint64_t>(i);
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    z ^= z >> 31;
    const auto bits = static_cast<uint32_t>(z);
    const auto more = static_cast<uint32_t>(z >> 32);
    constexpr int kMantissaBits = kDtype == Dtype::kFp32 ? 23 : kDtype == Dtype::kBf16 ? 7 : 10;
    constexpr uint32_t kBias = kDtype == Dtype::kFp16 ? 15 : 127;
    constexpr uint32_t kSign = kDtype == Dtype::kFp32 ? 0x80000000u : 0x8000u;
    constexpr uint32_t kAll = kDtype == Dtype::kFp32 ? 0xFFFFFFFFu : 0xFFFFu;
    if (more % 2 == 0) return bits & kAll;
    return (bits & kSign) | (bits & ((1u << kMantissaBits) - 1)) |
           (kBias - 4 + more / 2 % 8) << kMantissaBits;
  }
};

// dw is 1, e and g are every pair of patterns, 2^26 of them from `first_e` on.
struct AllPairs {
  uint32_t first_e;
  uint32_t one;

  template <Dtype kDtype>
  __device__ uint32_t At(int tensor, int64_t i) const {
    if (tensor == 0) return one;
    return tensor == 1 ? first_e + static_cast<uint32_t>(i >> 16)
                       : static_cast<uint32_t>(i & 0xFFFF);
  }
};

// Every gate, for one pair of dw and g after another.
struct AllGates {
  const uint32_t* dw;
  const uint32_t* g;

  template <Dtype kDtype>
  __device__ uint32_t At(int tensor, int64_t i) const {
    if (tensor == 1) return static_cast<uint32_t>(i & 0xFFFF);
    return (tensor == 0 ? dw : g)[i >> 16];
  }
};

// Every FP32 gate, 2^26 of them from `first` on; dw and g are 1.
struct AllFp32Gates {
  uint32_t first;

  template <Dtype kDtype>
  __device__ uint32_t At(int tensor, int64_t i) const {
    return tensor == 1 ? first + static_cast<uint32_t>(i) : 0x3F800000u;
  }
};

template <Dtype kDtype, class Inputs>
__global__ void Fill(Inputs inputs, int tensor, Element<kDtype>* out, int64_t n) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride) {
    out[i] = static_cast<Element<kDtype>>(inputs.template At<kDtype>(tensor, i));
  }
}

// What a check found: how many elements it looked at, how many differ, and the smallest index of
// one.
struct Findings {
  unsigned long long num_checked;
  unsigned long long num_differing;
  unsigned long long first;
};

// Compares the outputs; df and de are nullptr for forward.
template <Dtype kDtype, class Inputs>
__global__ void Check(Inputs inputs, const Element<kDtype>* h, const Element<kDtype>* df,
                      const Element<kDtype>* de, int64_t n, const uint16_t* table,
                      Findings* findings) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  unsigned long long num_checked = 0;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride) {
    ++num_checked;
    const auto expected =
        Expect<kDtype>(inputs.template At<kDtype>(0, i), inputs.template At<kDtype>(1, i),
                       inputs.template At<kDtype>(2, i), table);
    bool same = Same<kDtype>(h[i], expected.h);
    if (df != nullptr) same &= Same<kDtype>(df[i], expected.df) && Same<kDtype>(de[i], expected.de);
    if (same) continue;
    atomicAdd(&findings->num_differing, 1);
    atomicMin(&findings->first, static_cast<unsigned long long>(i));
  }
  atomicAdd(&findings->num_checked, num_checked);
}

}  // namespace swiglu::kernels::expected
