// SPDX-License-Identifier: Apache-2.0
//
// The gradients of an MLP's weights by mma.sync, for every architecture from Ampere on.
//
//   sums[row][column] = sum over tokens of rows[token][row] * columns[token][column]
//
// Accumulation: float32, one accumulator for each sum, tokens ascending in steps of 16 (m16n8k16).
// It begins with 0 or with what is in memory. So the bits are the same however the tokens are cut
// into launches, if all cuts are at multiples of 16.
//
// A block computes a tile of 128 by 128 sums. cp.async fills a ring of stages with 64 tokens each.
// The tokens are the slow dimension of both operands, so ldmatrix transposes both. Bytes moved:
// each row once for each tile of columns, each column once for each tile of rows, and the sums
// once, or twice if they begin with what is in memory. With many tokens arithmetic is the limit,
// with fewer than about 500 the bytes of the sums.
//
// Where rows, columns or tokens end inside a tile, both operands are filled with zeros, and the
// tokens end at the next multiple of 16. So what lies in memory behind a tensor never counts.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <cstdint>

#include "kernels/cuda/ampere.cuh"
#include "kernels/cuda/early_start.cuh"
#include "kernels/cuda/mlp_launch.cuh"
#include "kernels/cuda/mlp_order.cuh"
#include "kernels/cuda/mlp_plan.h"
#include "swiglu/dtype.h"

namespace swiglu::internal {

// The tile of a block, in rows and in columns, and how it is computed. In a stage an operand is two
// panels, each with 64 rows or columns of every token: 128 bytes a token.
struct GradientTile {
  static constexpr int kSize = 128;
  static constexpr int kWarpRows = 64, kWarpColumns = 32;
  static constexpr int kThreads = kSize / kWarpRows * (kSize / kWarpColumns) * 32;
  static constexpr int kTokens = 64, kStages = 3;
  static constexpr int kSteps = kTokens / 16;
  static constexpr int kPanelBytes = kTokens * 128;
  static constexpr int kOperandBytes = kSize / 64 * kPanelBytes;
  static constexpr int kStageBytes = 2 * kOperandBytes;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static constexpr int kBlocksOnProcessor = 2;  // so at most 128 registers a thread
};

// Where 8 rows or columns of a token lie in an operand. `chunk` counts them from the tile's first.
__device__ inline uint32_t PlaceInOperand(int token, int chunk) {
  return chunk / 8 * GradientTile::kPanelBytes + PlaceInPanel(token, chunk % 8);
}

// Copies the stage's tokens of one operand to `operand`: kSize elements of each, from element
// `first` on. `tokens` is [num_tokens][width].
__device__ inline void CopyOperand(uint32_t operand, const uint16_t* tokens, int num_tokens,
                                   int width, int first_token, int first) {
  using Tile = GradientTile;
  constexpr int kChunks = Tile::kSize / 8;  // of a token
  constexpr int kTokensAtOnce = Tile::kThreads / kChunks;
  static_assert(Tile::kThreads % kChunks == 0 && Tile::kTokens % kTokensAtOnce == 0);
  const int thread = static_cast<int>(threadIdx.x);
  const int chunk = thread % kChunks;
  const int element = first + chunk * 8;
#pragma unroll
  for (int i = 0; i < Tile::kTokens / kTokensAtOnce; ++i) {
    const int token = thread / kChunks + i * kTokensAtOnce;
    const bool exists = element < width && first_token + token < num_tokens;
    const uint16_t* from = tokens + int64_t{first_token + token} * width + element;
    CopyAsync(operand + PlaceInOperand(token, chunk), exists ? from : tokens, exists);
  }
}

// The sums of a warp, and how it adds to them what a stage holds.
template <Dtype kDtype>
class GradientWarp {
 public:
  __device__ GradientWarp() {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    constexpr int kWarpsDown = GradientTile::kSize / GradientTile::kWarpRows;
    first_row_ = warp % kWarpsDown * GradientTile::kWarpRows;
    first_column_ = warp / kWarpsDown * GradientTile::kWarpColumns;
#pragma unroll
    for (auto& row : sums_) {
#pragma unroll
      for (auto& block : row) {
#pragma unroll
        for (float& sum : block) sum = 0;
      }
    }
  }

  // Adds one step of 16 tokens.
  __device__ void AddStep(uint32_t rows_operand, uint32_t columns_operand, int step) {
    uint32_t rows[kRowBlocks][4], columns[kColumnBlocks / 2][4];
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int token = step * 16 + lane % 8;
    const int upper = lane / 16, odd = lane / 8 % 2;  // the matrix of the four is 2 upper + odd
#pragma unroll
    for (int i = 0; i < kRowBlocks; ++i) {
      // Rows 0 to 7 and 8 to 15 of the first 8 tokens, then of the others.
      const int chunk = (first_row_ + i * 16) / 8 + odd;
      LoadMatrices<true>(rows_operand + PlaceInOperand(token + upper * 8, chunk), rows[i]);
    }
#pragma unroll
    for (int j = 0; j < kColumnBlocks / 2; ++j) {
      // Columns 0 to 7 of the first 8 tokens and of the others, then columns 8 to 15.
      const int chunk = (first_column_ + j * 16) / 8 + upper;
      LoadMatrices<true>(columns_operand + PlaceInOperand(token + odd * 8, chunk), columns[j]);
    }
#pragma unroll
    for (int i = 0; i < kRowBlocks; ++i) {
#pragma unroll
      for (int j = 0; j < kColumnBlocks; ++j) {
        MultiplyAccumulate<kDtype>(sums_[i][j], rows[i], columns[j / 2][j % 2 * 2],
                                   columns[j / 2][j % 2 * 2 + 1]);
      }
    }
  }

  // Calls function(sums, row, column) for each two neighbours in a row that this thread has, with
  // the place of the first in the tile.
  template <class Function>
  __device__ void ForEachPair(const Function& function) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int i = 0; i < kRowBlocks; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = first_row_ + i * 16 + half * 8 + lane / 4;
#pragma unroll
        for (int j = 0; j < kColumnBlocks; ++j) {
          function(&sums_[i][j][half * 2], row, first_column_ + j * 8 + lane % 4 * 2);
        }
      }
    }
  }

 private:
  static constexpr int kRowBlocks = GradientTile::kWarpRows / 16;
  static constexpr int kColumnBlocks = GradientTile::kWarpColumns / 8;

  float sums_[kRowBlocks][kColumnBlocks][4];
  int first_row_, first_column_;
};

// ---- The kernel: one block for each tile ----

template <Dtype kDtype>
__global__ void __launch_bounds__(GradientTile::kThreads, GradientTile::kBlocksOnProcessor)
    MmaGradientKernel(const __grid_constant__ GradientProduct product) {
  using Tile = GradientTile;
  extern __shared__ __align__(128) unsigned char shared[];

  // Which tile. Here rows take the place of outputs, and columns that of tokens.
  const int num_row_tiles = (product.num_rows + Tile::kSize - 1) / Tile::kSize;
  const int num_column_tiles = (product.num_columns + Tile::kSize - 1) / Tile::kSize;
  const TileIndex tile = TileAt(16, static_cast<int>(blockIdx.x), num_row_tiles, num_column_tiles);
  const int first_row = tile.outputs * Tile::kSize;
  const int first_column = tile.tokens * Tile::kSize;

  // The earlier work of the stream makes the operands, and may make the sums.
  LetNextKernelStart();
  AwaitEarlierWork();

  // Fill all stages but one.
  const uint32_t ring = SharedAddress(shared);
  const int num_loads = (product.num_tokens + Tile::kTokens - 1) / Tile::kTokens;
  const auto load = [&](int number) {
    if (number < num_loads) {
      const uint32_t stage = ring + number % Tile::kStages * Tile::kStageBytes;
      const int first_token = number * Tile::kTokens;
      CopyOperand(stage, product.rows, product.num_tokens, product.num_rows, first_token,
                  first_row);
      CopyOperand(stage + Tile::kOperandBytes, product.columns, product.num_tokens,
                  product.num_columns, first_token, first_column);
    }
    CommitCopies();
  };
#pragma unroll
  for (int number = 0; number < Tile::kStages - 1; ++number) load(number);

  // Calls function(two sums, their place in memory) for those that exist. Columns are even in
  // number, so that both of two exist, or none.
  GradientWarp<kDtype> warp;
  const auto for_each_pair = [&](const auto& function) {
    warp.ForEachPair([&](float* sums, int row, int column) {
      row += first_row;
      column += first_column;
      if (row >= product.num_rows || column >= product.num_columns) return;
      float* const place = product.sums + int64_t{row} * product.num_columns + column;
      function(sums, reinterpret_cast<float2*>(place));
    });
  };
  if (product.first == MlpSums::kContinue) {
    for_each_pair([](float* sums, const float2* place) {
      const float2 first = *place;
      sums[0] = first.x;
      sums[1] = first.y;
    });
  }

  // Multiply what one stage holds while the others are filled.
  const int num_steps = (product.num_tokens + 15) / 16;
  for (int number = 0; number < num_loads; ++number) {
    AwaitCopies<Tile::kStages - 2>();
    __syncthreads();
    load(number + Tile::kStages - 1);
    const uint32_t stage = ring + number % Tile::kStages * Tile::kStageBytes;
    const int steps_left = num_steps - number * Tile::kSteps;
    if (steps_left >= Tile::kSteps) {
#pragma unroll
      for (int step = 0; step < Tile::kSteps; ++step) {
        warp.AddStep(stage, stage + Tile::kOperandBytes, step);
      }
    } else {
#pragma unroll 1
      for (int step = 0; step < steps_left; ++step) {
        warp.AddStep(stage, stage + Tile::kOperandBytes, step);
      }
    }
  }

  // Store.
  for_each_pair([](const float* sums, float2* place) { *place = make_float2(sums[0], sums[1]); });
}

// Enqueues the kernel.
template <Dtype kDtype>
cudaError_t LaunchMmaGradientKernel(const GradientProduct& product, const MlpDevice& device,
                                    cudaStream_t stream) {
  static std::atomic<uint64_t> prepared{0};
  constexpr TileSize kTile{GradientTile::kSize, GradientTile::kSize};
  GradientProduct argument = product;
  return LaunchKernel(
      {reinterpret_cast<const void*>(MmaGradientKernel<kDtype>),
       NumTiles(kTile, product.num_rows, product.num_columns), GradientTile::kThreads,
       GradientTile::kSharedBytes, device.compute_capability >= 9},
      &argument, prepared, stream);
}

}  // namespace swiglu::internal
