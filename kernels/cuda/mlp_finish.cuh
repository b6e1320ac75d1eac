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

// The sums of a block as this thread holds them, rounded. Each word has two neighbours: two tokens
// of an output, or two outputs of a token where tokens are the rows.
struct RoundedBlock {
  uint32_t upper;  // of row lane / 4
  uint32_t lower;  // of row lane / 4 + 8
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

// ---- Tokens as rows ----
//
// wgmma may also have tokens as rows and outputs as columns. Then the thread at `lane` of a warp
// holds, of each block of 16 tokens and 8 outputs, outputs 2 (lane % 4) and 2 (lane % 4) + 1 of
// tokens lane / 4 and lane / 4 + 8. Blocks of e and g alternate.

// Transposes 4 by 4 words that the four threads of a quad hold: word i of thread q becomes word q
// of thread i. All lanes of a warp call this together.
__device__ inline void TransposeQuad(uint32_t (&words)[4]) {
  const int quarter = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int bit = 1; bit <= 2; bit *= 2) {
    const bool is_upper = (quarter & bit) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if ((i & bit) != 0) continue;
      uint32_t &mine = words[i], &others = words[i | bit];
      const uint32_t got = __shfl_xor_sync(~0u, is_upper ? mine : others, bit);
      (is_upper ? mine : others) = got;
    }
  }
}

// What the threads of a quad finish together: up to so many blocks of 8 outputs of one token.
inline constexpr int kPartBlocks = 8;

struct TokenPart {
  int token;
  int output;      // the first
  int num_blocks;  // that are left in the tile; there may be more than kPartBlocks
};

__device__ inline uint4 PackWords(const uint32_t (&words)[4]) {
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// Where a thread reads and writes 8 elements of dw, h, df and de in a part of e and g.
struct PartPlace {
  __device__ PartPlace(const Product& product, const TokenPart& part) {
    const int pair = static_cast<int>(threadIdx.x) % 4;  // of a block of e and one of g
    const int output = part.output + pair * 16;
    exists = part.token < product.num_tokens && pair * 2 < part.num_blocks &&
             output < product.num_outputs;
    at = int64_t{part.token} * (product.num_outputs / 2) + output / 2;
  }

  bool exists;
  int64_t at;
};

// Reads dw for FinishPart.
__device__ inline uint4 LoadDw(const Product& product, const TokenPart& part) {
  const PartPlace place(product, part);
  return place.exists ? *reinterpret_cast<const uint4*>(product.dw + place.at) : uint4{};
}

// Stores a part as it is.
__device__ inline void StorePart(const Product& product, const TokenPart& part,
                                 const uint32_t (&words)[kPartBlocks]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    uint32_t outputs[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) outputs[i] = words[half * 4 + i];
    TransposeQuad(outputs);
    const int block = half * 4 + static_cast<int>(threadIdx.x) % 4;
    const int output = part.output + block * 8;
    if (part.token < product.num_tokens && block < part.num_blocks &&
        output < product.num_outputs) {
      const int64_t at = int64_t{part.token} * product.num_outputs + output;
      *reinterpret_cast<uint4*>(product.out[0] + at) = PackWords(outputs);
    }
  }
}

// Finishes a part, as `finish` says. `words` has one word of each block. All lanes of a warp call
// this together.
template <Dtype kDtype>
__device__ inline void FinishPart(Finish finish, const Product& product, const TokenPart& part,
                                  const uint32_t (&words)[kPartBlocks], const uint4& dw) {
  if (finish == Finish::kStore || finish == Finish::kStoreSum) {
    StorePart(product, part, words);
    return;
  }

  const PartPlace place(product, part);
  uint32_t h[4];
  if (finish == Finish::kSwiglu) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t inputs[2] = {words[2 * i], words[2 * i + 1]};
      uint32_t outputs[1];
      ComputeWord<kDtype>(inputs, outputs);
      h[i] = outputs[0];
    }
    TransposeQuad(h);
    if (place.exists) *reinterpret_cast<uint4*>(product.out[0] + place.at) = PackWords(h);
    return;
  }

  uint32_t e[4], g[4], df[4], de[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    e[i] = words[2 * i];
    g[i] = words[2 * i + 1];
  }
  TransposeQuad(e);
  TransposeQuad(g);
  const uint32_t dw_words[4] = {dw.x, dw.y, dw.z, dw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t inputs[3] = {dw_words[i], e[i], g[i]};
    uint32_t outputs[3];  // h, df, de
    ComputeWord<kDtype>(inputs, outputs);
    h[i] = outputs[0];
    df[i] = outputs[1];
    de[i] = outputs[2];
  }
  if (!place.exists) return;
  *reinterpret_cast<uint4*>(product.out[0] + place.at) = PackWords(df);
  *reinterpret_cast<uint4*>(product.out[1] + place.at) = PackWords(de);
  if (product.out[2] != nullptr) {
    *reinterpret_cast<uint4*>(product.out[2] + place.at) = PackWords(h);
  }
}

}  // namespace swiglu::internal
