// SPDX-License-Identifier: Apache-2.0
//
// The end of a product: sums are rounded to T, passed through SwiGLU where they are e and g, and
// stored. mma.sync and wgmma leave sums in the same places: of each block of 16 outputs and 8
// tokens, the thread at `lane` of its warp holds outputs lane / 4 and lane / 4 + 8 of tokens
// 2 (lane % 4) and 2 (lane % 4) + 1. With gate and up rows interleaved by 8, these are e and g of
// the same elements. Private to the kernels.
#pragma once

#include <cstdint>

#include "kernels/cuda/arithmetic.cuh"
#include "kernels/cuda/mlp_plan.h"
#include "swiglu/dtype.h"

namespace swiglu::internal {

// The sums of a block as this thread holds them, rounded. Each word has two tokens.
struct RoundedBlock {
  uint32_t upper;  // of output lane / 4
  uint32_t lower;  // of output lane / 4 + 8
};

template <Dtype kDtype>
__device__ inline RoundedBlock Round(const float* sums) {
  using W = Word<kDtype>;
  const float upper[2] = {sums[0], sums[1]}, lower[2] = {sums[2], sums[3]};
  return {W::Narrow(upper), W::Narrow(lower)};
}

// T(a + b) for both elements of each word.
template <Dtype kDtype>
__device__ inline uint32_t AddWords(uint32_t a, uint32_t b) {
  using W = Word<kDtype>;
  float x[2], y[2];
  W::Widen(a, x);
  W::Widen(b, y);
  const float sums[2] = {__fadd_rn(x[0], y[0]), __fadd_rn(x[1], y[1])};
  return W::Narrow(sums);
}

template <Dtype kDtype>
__device__ inline RoundedBlock Add(const RoundedBlock& a, const RoundedBlock& b) {
  return {AddWords<kDtype>(a.upper, b.upper), AddWords<kDtype>(a.lower, b.lower)};
}

// Transposes an 8 by 8 block that a warp holds, one word a thread. Before, a thread's word is two
// tokens of one output; after, outputs 2 (lane % 4) and 2 (lane % 4) + 1 of token lane / 4.
__device__ inline uint32_t Transpose(uint32_t word) {
  uint32_t transposed;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(word));
  return transposed;
}

// Finishes the block whose first output and token are these, as `finish` says. All lanes of a warp
// call this together.
template <Dtype kDtype>
__device__ inline void FinishBlock(Finish finish, const Product& product, const RoundedBlock& block,
                                   int output, int first_token) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int token = first_token + lane / 4;
  const int pair = lane % 4 * 2;
  const bool has_token = token < product.num_tokens;

  if (finish == Finish::kStore || finish == Finish::kStoreSum) {
    const uint32_t words[2] = {Transpose(block.upper), Transpose(block.lower)};
    uint16_t* to = product.out[0] + int64_t{token} * product.num_outputs + output + pair;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (has_token && output + half * 8 < product.num_outputs) {
        *reinterpret_cast<uint32_t*>(to + half * 8) = words[half];
      }
    }
    return;
  }

  const bool exists = has_token && output < product.num_outputs;
  const int64_t at = int64_t{token} * (product.num_outputs / 2) + output / 2 + pair;
  if (finish == Finish::kSwiglu) {
    const uint32_t inputs[2] = {block.upper, block.lower};
    uint32_t h[1];
    ComputeWord<kDtype>(inputs, h);
    const uint32_t word = Transpose(h[0]);
    if (exists) *reinterpret_cast<uint32_t*>(product.out[0] + at) = word;
    return;
  }

  const uint32_t e = Transpose(block.upper), g = Transpose(block.lower);
  if (!exists) return;
  const uint32_t inputs[3] = {*reinterpret_cast<const uint32_t*>(product.dw + at), e, g};
  uint32_t outputs[3];  // h, df, de
  ComputeWord<kDtype>(inputs, outputs);
  *reinterpret_cast<uint32_t*>(product.out[0] + at) = outputs[1];
  *reinterpret_cast<uint32_t*>(product.out[1] + at) = outputs[2];
  if (product.out[2] != nullptr) {
    *reinterpret_cast<uint32_t*>(product.out[2] + at) = outputs[0];
  }
}

}  // namespace swiglu::internal
