// SPDX-License-Identifier: Apache-2.0
//
// The products of an MLP by mma.sync, for every architecture from Ampere on.
//
//   S[token][output] = sum over k of tokens[token][k] * weights[output][k]
//
// and what mlp_plan.h's Finish does with S. Accumulation: float32, one accumulator for each S, k
// ascending in steps of 16 (m16n8k16). Weights are the operand with 16 rows and tokens that with 8
// columns, so that few tokens need little padding. Bytes moved: each weight once for each tile of
// tokens, each token once for each tile of outputs. With few tokens the kernel only has to keep
// enough bytes in flight: cp.async fills a ring of stages in shared memory.
//
// Where outputs, tokens or depth end inside a tile, both operands are filled with zeros, and depth
// ends at the next multiple of 16. So what lies in memory behind a tensor never counts, and every
// tile adds the same terms.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <cstdint>

#include "kernels/cuda/ampere.cuh"
#include "kernels/cuda/early_start.cuh"
#include "kernels/cuda/mlp_finish.cuh"
#include "kernels/cuda/mlp_launch.cuh"
#include "kernels/cuda/mlp_order.cuh"
#include "kernels/cuda/mlp_plan.h"
#include "swiglu/dtype.h"

namespace swiglu::internal {

// ---- Tiles ----

// A tile of kOutputs by kTokens, of which each warp computes kWarpOutputs by kWarpTokens. A stage
// is kPanels * 64 deep, and kStages of them are in shared memory.
template <int kOutputs_, int kTokens_, int kWarpOutputs_, int kWarpTokens_, int kPanels_,
          int kStages_>
struct MmaTileShape {
  static constexpr int kOutputs = kOutputs_, kTokens = kTokens_;
  static constexpr int kWarpOutputs = kWarpOutputs_, kWarpTokens = kWarpTokens_;
  static constexpr int kPanels = kPanels_, kStages = kStages_;
  static constexpr int kDepth = kPanels * 64;
  static constexpr int kSteps = kDepth / 16;
  static constexpr int kThreads = kOutputs / kWarpOutputs * (kTokens / kWarpTokens) * 32;
  static constexpr int kWeightsBytes = kOutputs * kDepth * 2;
  static constexpr int kTokensBytes = kTokens * kDepth * 2;
  static constexpr int kStageBytes = kWeightsBytes + kTokensBytes;
  static constexpr int kSharedBytes = kStages * kStageBytes;
};

// The row of gate_up, or of Wd, that has depth k, before an offset of 8 for the rows of Wu.
__device__ inline int StoredRow(int k, bool is_interleaved) {
  return is_interleaved ? 2 * (k & ~7) + (k & 7) : k;
}

// Copies a tile's operands into stages. `term` is 0, or 1 for the second of two products.
template <class Tile, WeightsLayout kLayout>
class MmaLoader {
 public:
  __device__ MmaLoader(const Product& product, int first_output, int first_token)
      : product_(product), first_output_(first_output), first_token_(first_token) {}

  __device__ void LoadWeights(uint32_t stage, int term, int first_k) const {
    if constexpr (kLayout == WeightsLayout::kOutputMajor) {
      LoadRows<Tile::kOutputs>(stage, product_.weights, first_output_, product_.num_outputs,
                               first_k);
    } else {
      ForEachWeightsChunk(term, first_k, [&](uint32_t place, const uint16_t* from, bool exists) {
        CopyAsync(stage + place, from, exists);
      });
    }
  }

  __device__ void LoadTokens(uint32_t stage, int term, int first_k) const {
    LoadRows<Tile::kTokens>(stage, product_.tokens[term], first_token_, product_.num_tokens,
                            first_k);
  }

  // Asks the L2 to fetch the weights of the first stages.
  __device__ void PrefetchWeights() const {
    constexpr int kLineElements = 64;
    constexpr int kDepth = Tile::kDepth * (Tile::kStages - 1);
    if constexpr (kLayout == WeightsLayout::kOutputMajor) {
      constexpr int kLines = kDepth / kLineElements;
      for (int i = static_cast<int>(threadIdx.x); i < Tile::kOutputs * kLines;
           i += Tile::kThreads) {
        const int output = first_output_ + i / kLines, k = i % kLines * kLineElements;
        if (output < product_.num_outputs && k < product_.depth) {
          PrefetchIntoL2(product_.weights + int64_t{output} * product_.depth + k);
        }
      }
    } else {
      constexpr int kLines = Tile::kOutputs / kLineElements;
      for (int i = static_cast<int>(threadIdx.x); i < kDepth * kLines; i += Tile::kThreads) {
        const int output = first_output_ + i % kLines * kLineElements, k = i / kLines;
        if (output < product_.num_outputs && k < product_.depth) {
          PrefetchIntoL2(WeightsAt(0, k, output));
        }
      }
    }
  }

 private:
  // Rows that are contiguous in depth: tokens, or output-major weights.
  template <int kRows>
  __device__ void LoadRows(uint32_t stage, const uint16_t* rows, int first_row, int num_rows,
                           int first_k) const {
    constexpr int kChunks = Tile::kDepth / 8;  // of a row
    constexpr int kRowsAtOnce = Tile::kThreads / kChunks;
    static_assert(Tile::kThreads % kChunks == 0 && kRows % kRowsAtOnce == 0);
    const int thread = static_cast<int>(threadIdx.x);
    const int chunk = thread % kChunks;
    const int k = first_k + chunk * 8;
    const bool has_depth = k < product_.depth;
    const uint32_t panel = stage + chunk / 8 * (kRows * 128);
#pragma unroll
    for (int i = 0; i < kRows / kRowsAtOnce; ++i) {
      const int row = thread / kChunks + i * kRowsAtOnce;
      const bool exists = has_depth && first_row + row < num_rows;
      const uint16_t* from = rows + int64_t{first_row + row} * product_.depth + k;
      CopyAsync(panel + PlaceInPanel(row, chunk % 8), exists ? from : rows, exists);
    }
  }

  // Depth-major weights: panels of 64 outputs, whose rows are the depth.
  template <class Function>
  __device__ void ForEachWeightsChunk(int term, int first_k, const Function& function) const {
    constexpr int kChunks = Tile::kOutputs / 8;
    constexpr int kRowsAtOnce = Tile::kThreads / kChunks;
    static_assert(Tile::kThreads % kChunks == 0 && Tile::kDepth % kRowsAtOnce == 0);
    const int thread = static_cast<int>(threadIdx.x);
    const int chunk = thread % kChunks;
    const int output = first_output_ + chunk * 8;
    const bool has_output = output < product_.num_outputs;
#pragma unroll
    for (int i = 0; i < Tile::kDepth / kRowsAtOnce; ++i) {
      const int row = thread / kChunks + i * kRowsAtOnce;
      const bool exists = has_output && first_k + row < product_.depth;
      const uint16_t* from = exists ? WeightsAt(term, first_k + row, output) : product_.weights;
      function(chunk / 8 * (Tile::kDepth * 128) + PlaceInPanel(row, chunk % 8), from, exists);
    }
  }

  __device__ const uint16_t* WeightsAt(int term, int k, int output) const {
    const int offset = product_.is_interleaved && term == 0 ? 8 : 0;
    return product_.weights +
           int64_t{StoredRow(k, product_.is_interleaved) + offset} * product_.num_outputs + output;
  }

  const Product& product_;
  const int first_output_, first_token_;
};

// The sums of a warp, and how it adds to them what a stage holds.
template <Dtype kDtype, class Tile, WeightsLayout kLayout>
class MmaWarp {
 public:
  static constexpr int kOutputBlocks = Tile::kWarpOutputs / 16;
  static constexpr int kTokenBlocks = Tile::kWarpTokens / 8;

  __device__ MmaWarp() {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    first_output_ = warp % (Tile::kOutputs / Tile::kWarpOutputs) * Tile::kWarpOutputs;
    first_token_ = warp / (Tile::kOutputs / Tile::kWarpOutputs) * Tile::kWarpTokens;
    Clear();
  }

  __device__ void Clear() {
#pragma unroll
    for (auto& row : sums) {
#pragma unroll
      for (auto& block : row) {
#pragma unroll
        for (float& sum : block) sum = 0;
      }
    }
  }

  // Adds one step of 16.
  __device__ void AddStep(uint32_t weights_stage, uint32_t tokens_stage, int step) {
    uint32_t weights[kOutputBlocks][4], tokens[kTokenBlocks / 2][4];
#pragma unroll
    for (int i = 0; i < kOutputBlocks; ++i) LoadWeights(weights_stage, step, i, weights[i]);
#pragma unroll
    for (int j = 0; j < kTokenBlocks / 2; ++j) LoadTokens(tokens_stage, step, j, tokens[j]);
#pragma unroll
    for (int i = 0; i < kOutputBlocks; ++i) {
#pragma unroll
      for (int j = 0; j < kTokenBlocks; ++j) {
        MultiplyAccumulate<kDtype>(sums[i][j], weights[i], tokens[j / 2][j % 2 * 2],
                                   tokens[j / 2][j % 2 * 2 + 1]);
      }
    }
  }

  // Calls function(i, j, output, token) for each block, with its place in the tile.
  template <class Function>
  __device__ void ForEachBlock(const Function& function) {
#pragma unroll
    for (int i = 0; i < kOutputBlocks; ++i) {
#pragma unroll
      for (int j = 0; j < kTokenBlocks; ++j) {
        function(i, j, first_output_ + i * 16, first_token_ + j * 8);
      }
    }
  }

  float sums[kOutputBlocks][kTokenBlocks][4];

 private:
  __device__ void LoadWeights(uint32_t stage, int step, int block, uint32_t (&words)[4]) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int output = first_output_ + block * 16;
    if constexpr (kLayout == WeightsLayout::kOutputMajor) {
      const uint32_t panel = stage + step / 4 * (Tile::kOutputs * 128);
      LoadMatrices<false>(panel + PlaceInPanel(output + lane % 16, step % 4 * 2 + lane / 16),
                          words);
    } else {
      const int k = step * 16 + lane % 8 + lane / 16 * 8;
      const int chunk = output / 8 + lane / 8 % 2;
      const uint32_t panel = stage + chunk / 8 * (Tile::kDepth * 128);
      LoadMatrices<true>(panel + PlaceInPanel(k, chunk % 8), words);
    }
  }

  // Two blocks of 8 tokens.
  __device__ void LoadTokens(uint32_t stage, int step, int pair, uint32_t (&words)[4]) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int token = first_token_ + pair * 16 + lane % 8 + lane / 16 * 8;
    const uint32_t panel = stage + step / 4 * (Tile::kTokens * 128);
    LoadMatrices<false>(panel + PlaceInPanel(token, step % 4 * 2 + lane / 8 % 2), words);
  }

  int first_output_, first_token_;
};

// ---- The kernel: one block for each tile ----

template <Dtype kDtype, class Tile, WeightsLayout kLayout>
__global__ void __launch_bounds__(Tile::kThreads)
    MmaKernel(const __grid_constant__ Product product) {
  extern __shared__ __align__(128) unsigned char shared[];

  // Which tile.
  const int num_output_tiles = (product.num_outputs + Tile::kOutputs - 1) / Tile::kOutputs;
  const int num_token_tiles = (product.num_tokens + Tile::kTokens - 1) / Tile::kTokens;
  const TileIndex tile =
      TileAt(16, static_cast<int>(blockIdx.x), num_output_tiles, num_token_tiles);
  const int first_output = tile.outputs * Tile::kOutputs;
  const int first_token = tile.tokens * Tile::kTokens;
  const MmaLoader<Tile, kLayout> loader(product, first_output, first_token);

  // Before the earlier work is done, only weights may be touched.
  LetNextKernelStart();
#if __CUDA_ARCH__ >= 900
  loader.PrefetchWeights();
#endif
  AwaitEarlierWork();

  // Fill all stages but one.
  const uint32_t ring = SharedAddress(shared);
  const int stages_per_term = (product.depth + Tile::kDepth - 1) / Tile::kDepth;
  const bool has_two_terms = product.finish == Finish::kStoreSum;
  const int num_loads = has_two_terms ? 2 * stages_per_term : stages_per_term;
  const auto load = [&](int number) {
    if (number < num_loads) {
      const uint32_t stage = ring + number % Tile::kStages * Tile::kStageBytes;
      const int term = number >= stages_per_term ? 1 : 0;
      const int first_k = (number - term * stages_per_term) * Tile::kDepth;
      loader.LoadWeights(stage, term, first_k);
      loader.LoadTokens(stage + Tile::kWeightsBytes, term, first_k);
    }
    CommitCopies();
  };
#pragma unroll
  for (int number = 0; number < Tile::kStages - 1; ++number) load(number);

  // Multiply what one stage holds while the others are filled.
  using Warp = MmaWarp<kDtype, Tile, kLayout>;
  Warp warp;
  RoundedBlock first_term[Warp::kOutputBlocks][Warp::kTokenBlocks];
  const int num_steps = (product.depth + 15) / 16;
  for (int number = 0; number < num_loads; ++number) {
    AwaitCopies<Tile::kStages - 2>();
    __syncthreads();
    load(number + Tile::kStages - 1);
    const uint32_t stage = ring + number % Tile::kStages * Tile::kStageBytes;
    const int within_term = number >= stages_per_term ? number - stages_per_term : number;
    const int steps_left = num_steps - within_term * Tile::kSteps;
    if (steps_left >= Tile::kSteps) {
#pragma unroll
      for (int step = 0; step < Tile::kSteps; ++step) {
        warp.AddStep(stage, stage + Tile::kWeightsBytes, step);
      }
    } else {
#pragma unroll 1
      for (int step = 0; step < steps_left; ++step) {
        warp.AddStep(stage, stage + Tile::kWeightsBytes, step);
      }
    }
    if constexpr (kLayout == WeightsLayout::kDepthMajor) {
      if (has_two_terms && number == stages_per_term - 1) {
        warp.ForEachBlock(
            [&](int i, int j, int, int) { first_term[i][j] = Round<kDtype>(warp.sums[i][j]); });
        warp.Clear();
      }
    }
  }

  // Round, and store or pass on.
  warp.ForEachBlock([&](int i, int j, int output, int token) {
    RoundedBlock block = Round<kDtype>(warp.sums[i][j]);
    if constexpr (kLayout == WeightsLayout::kDepthMajor) {
      if (has_two_terms) block = Add<kDtype>(first_term[i][j], block);
    }
    FinishBlock<kDtype>(product.finish, product, block, first_output + output, first_token + token);
  });
}

// Enqueues the kernel of this tile.
template <Dtype kDtype, class Tile, WeightsLayout kLayout>
cudaError_t LaunchMmaTile(const Product& product, const MlpDevice& device, cudaStream_t stream) {
  static std::atomic<uint64_t> prepared{0};
  const TileSize size{Tile::kOutputs, Tile::kTokens};
  Product argument = product;
  return LaunchKernel({reinterpret_cast<const void*>(MmaKernel<kDtype, Tile, kLayout>),
                       NumTiles(size, product.num_outputs, product.num_tokens), Tile::kThreads,
                       Tile::kSharedBytes, device.compute_capability >= 9},
                      &argument, prepared, stream);
}

// The tiles there are; MmaTile of mlp_plan.h chooses among them.
using Mma32x16 = MmaTileShape<32, 16, 16, 16, 4, 4>;
using Mma64x16 = MmaTileShape<64, 16, 16, 16, 1, 5>;
using Mma32x64 = MmaTileShape<32, 64, 16, 32, 2, 4>;
using Mma64x64 = MmaTileShape<64, 64, 32, 32, 1, 4>;
using Mma128x64 = MmaTileShape<128, 64, 32, 32, 1, 4>;
using Mma128x128 = MmaTileShape<128, 128, 64, 32, 1, 3>;

}  // namespace swiglu::internal
