// SPDX-License-Identifier: Apache-2.0
//
// The arithmetic of SwiGLU on one 32-bit word: two FP16 or BF16 elements, or one FP32.
//
// Formula, with T the dtype and L the base-2 logarithm of Euler's number: e is widened to float32;
// t = e * -L, u = 2^t by ex2.approx.f32, se = 1 / (1 + u) by div.full.f32, f = T(se * e);
// h = T(f * g). In backward also df = T(dw * f), dg = T(dw * g), de = T((dg * se) * fma(e, 1 - se,
// 1)). Triton compiles unsloth/kernels/swiglu.py (Apache-2.0) to the same instructions, so on one
// architecture the results have the same bits. Every step is written as PTX with its rounding, so
// compiler flags (-use_fast_math, -fmad, -ftz) cannot change a step.
#pragma once

#include <cstdint>

#include "swiglu/dtype.h"
#include "swiglu/segment.h"

namespace swiglu::internal {

__device__ inline float Multiply(float a, float b) {
  float product;
  asm("mul.rn.f32 %0, %1, %2;" : "=f"(product) : "f"(a), "f"(b));
  return product;
}

__device__ inline float OneMinus(float a) {
  float difference;
  asm("sub.rn.f32 %0, 0f3F800000, %1;" : "=f"(difference) : "f"(a));
  return difference;
}

// a * b + 1, rounded once.
__device__ inline float MultiplyAddOne(float a, float b) {
  float sum;
  asm("fma.rn.f32 %0, %1, %2, 0f3F800000;" : "=f"(sum) : "f"(a), "f"(b));
  return sum;
}

__device__ inline float Sigmoid(float e) {
  // With L as above, (0 - e) * L has the same bits as e * -L, except for the sign of a zero. That
  // sign makes no difference to the exponential.
  float sigmoid;
  asm("{\n\t"
      ".reg .f32 t, u, d;\n\t"
      "mul.rn.f32 t, %1, 0fBFB8AA3B;\n\t"
      "ex2.approx.f32 u, t;\n\t"
      "add.rn.f32 d, u, 0f3F800000;\n\t"
      "div.full.f32 %0, 0f3F800000, d;\n\t"
      "}"
      : "=f"(sigmoid)
      : "f"(e));
  return sigmoid;
}

// How a word holds elements of each dtype. Element is an element in memory, and kPerWord is the
// number of elements in a word. Widen and Narrow convert (Narrow rounds to nearest even). Product
// multiplies in the dtype.
template <Dtype kDtype>
struct Word;

template <>
struct Word<Dtype::kFp16> {
  using Element = uint16_t;
  static constexpr int kPerWord = 2;

  __device__ static void Widen(uint32_t word, float (&values)[2]) {
    asm("{\n\t"
        ".reg .b16 low, high;\n\t"
        "mov.b32 {low, high}, %2;\n\t"
        "cvt.f32.f16 %0, low;\n\t"
        "cvt.f32.f16 %1, high;\n\t"
        "}"
        : "=f"(values[0]), "=f"(values[1])
        : "r"(word));
  }
  __device__ static uint32_t Narrow(const float (&values)[2]) {
    uint32_t word;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(values[1]), "f"(values[0]));
    return word;
  }
  __device__ static uint32_t Product(uint32_t a, uint32_t b) {
    uint32_t product;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
    return product;
  }
};

template <>
struct Word<Dtype::kBf16> {
  using Element = uint16_t;
  static constexpr int kPerWord = 2;

  __device__ static void Widen(uint32_t word, float (&values)[2]) {
    values[0] = __uint_as_float(word << 16);
    values[1] = __uint_as_float(word & 0xFFFF0000u);
  }
  __device__ static uint32_t Narrow(const float (&values)[2]) {
    uint32_t word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(values[1]), "f"(values[0]));
    return word;
  }
  __device__ static uint32_t Product(uint32_t a, uint32_t b) {
    uint32_t product;
#if __CUDA_ARCH__ >= 900
    asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
#else
    // Ampere has no multiplication of BF16 without an addition. Adding -0.0 keeps the sign of a
    // zero product.
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(product) : "r"(a), "r"(b), "r"(0x80008000u));
#endif
    return product;
  }
};

template <>
struct Word<Dtype::kFp32> {
  using Element = uint32_t;
  static constexpr int kPerWord = 1;

  __device__ static void Widen(uint32_t word, float (&values)[1]) {
    values[0] = __uint_as_float(word);
  }
  __device__ static uint32_t Narrow(const float (&values)[1]) { return __float_as_uint(values[0]); }
  __device__ static uint32_t Product(uint32_t a, uint32_t b) {
    return __float_as_uint(Multiply(__uint_as_float(a), __uint_as_float(b)));
  }
};

// Computes h from one word each of e and g.
template <Dtype kDtype>
__device__ inline void ComputeWord(const uint32_t (&inputs)[2], uint32_t (&outputs)[1]) {
  using W = Word<kDtype>;
  const auto [e, g] = inputs;
  float values[W::kPerWord];
  W::Widen(e, values);
#pragma unroll
  for (float& value : values) value = Multiply(Sigmoid(value), value);
  outputs[0] = W::Product(W::Narrow(values), g);
}

// Computes h, df and de from one word each of dw, e and g.
template <Dtype kDtype>
__device__ inline void ComputeWord(const uint32_t (&inputs)[3], uint32_t (&outputs)[3]) {
  using W = Word<kDtype>;
  const auto [dw, e, g] = inputs;
  float e_values[W::kPerWord], f_values[W::kPerWord], dg_values[W::kPerWord];
  float de_values[W::kPerWord];
  W::Widen(e, e_values);
  W::Widen(W::Product(dw, g), dg_values);
#pragma unroll
  for (int i = 0; i < W::kPerWord; ++i) {
    const float sigmoid = Sigmoid(e_values[i]);
    f_values[i] = Multiply(sigmoid, e_values[i]);
    de_values[i] =
        Multiply(Multiply(dg_values[i], sigmoid), MultiplyAddOne(e_values[i], OneMinus(sigmoid)));
  }
  const uint32_t f = W::Narrow(f_values);
  outputs[0] = W::Product(f, g);
  outputs[1] = W::Product(dw, f);
  outputs[2] = W::Narrow(de_values);
}

}  // namespace swiglu::internal
