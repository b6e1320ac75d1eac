// SPDX-License-Identifier: Apache-2.0
//
// The gradients of an MLP's weights by wgmma, for Hopper. The sums, their order and their bits are
// those of mlp_gradient_mma.cuh: each wgmma adds 16 tokens to float32 accumulators.
//
// A block computes a tile of 128 by 128 sums. One warp, the producer, fills a ring of stages in
// shared memory by tensor copies (TMA); two warpgroups, the consumers, multiply what lies there,
// each 64 rows by 128 columns. Each stage has two barriers: `filled`, and `emptied`. The tokens are
// the slow dimension of both operands, so wgmma takes both transposed. Two blocks share a
// multiprocessor: while one reads or writes its sums, the other multiplies.
//
// Bytes moved: as in mlp_gradient_mma.cuh. Where rows, columns or tokens end inside a tile, TMA
// fills in zeros.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "kernels/cuda/early_start.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/mlp_launch.cuh"
#include "kernels/cuda/mlp_order.cuh"
#include "kernels/cuda/mlp_plan.h"
#include "kernels/cuda/mlp_wgmma.cuh"
#include "swiglu/dtype.h"

namespace swiglu::internal {

// The tile of a block, in rows and in columns, and how it is computed. In a stage an operand is two
// panels, each with 64 rows or columns of every token: 128 bytes a token. The rows take the place
// of weights in WgmmaShared, and the columns that of tokens.
struct WgmmaGradientTile {
  static constexpr int kSize = 128;
  static constexpr int kConsumers = kSize / 64;
  static constexpr int kThreads = kConsumers * 128 + 32;
  static constexpr int kTokens = 64, kStages = 3;
  static constexpr int kPanels = kSize / 64;
  static constexpr int kPanelBytes = kTokens * 128;
  static constexpr int kWeightsBytes = kPanels * kPanelBytes;
  static constexpr int kStageBytes = 2 * kWeightsBytes;
  static constexpr int kAlignment = 1024;  // of each panel, for the swizzle
  static constexpr int kSharedBytes = kAlignment + kStages * kStageBytes + 2 * kStages * 8;
  static constexpr int kBlocksOnProcessor = 2;
  static_assert(kPanelBytes % kAlignment == 0);
  static_assert(kBlocksOnProcessor * (kSharedBytes + 1024) <= 228 << 10);
};

// What a kernel gets.
struct WgmmaGradientArguments {
  CUtensorMap rows, columns;
  int box_tokens;  // of the boxes of both
  GradientProduct product;
};

// Fills stages with the tokens of a tile, whose first row and column are `first`.
__device__ inline void ProduceGradient(const WgmmaGradientArguments& arguments,
                                       const WgmmaShared<WgmmaGradientTile>& shared,
                                       const TileIndex& first) {
  using Tile = WgmmaGradientTile;
  hopper::PrefetchMap(arguments.rows);
  hopper::PrefetchMap(arguments.columns);
  AwaitEarlierWork();
  const int stage_bytes = 2 * Tile::kPanels * arguments.box_tokens * 128;
  RingPosition<Tile::kStages> position;
#pragma unroll 1
  for (int token = 0; token < arguments.product.num_tokens; token += Tile::kTokens) {
    hopper::AwaitBarrier(shared.emptied(position.stage), position.parity ^ 1);
    if (hopper::IsElected()) {
      const uint32_t filled = shared.filled(position.stage);
      hopper::ArriveAndExpect(filled, stage_bytes);
#pragma unroll
      for (int i = 0; i < Tile::kPanels; ++i) {
        hopper::CopyBox(arguments.rows, shared.weights(position.stage) + i * Tile::kPanelBytes,
                        filled, first.outputs + i * 64, token);
        hopper::CopyBox(arguments.columns, shared.tokens(position.stage) + i * Tile::kPanelBytes,
                        filled, first.tokens + i * 64, token);
      }
    }
    position.Advance();
  }
}

// The sums of a thread: rows lane / 4 and lane / 4 + 8 of the warp's 16, of every 8 columns two
// neighbours.
class WgmmaGradientSums {
 public:
  // `first` has the first row and column of the warp.
  __device__ WgmmaGradientSums(const GradientProduct& product, const TileIndex& first)
      : product_(product),
        row_(first.outputs + static_cast<int>(threadIdx.x) % 32 / 4),
        column_(first.tokens + static_cast<int>(threadIdx.x) % 4 * 2) {
    if (product.first == MlpSums::kContinue) {
      ForEachPair([](float* sums, const float2* place) {
        const float2 first_sums = *place;
        sums[0] = first_sums.x;
        sums[1] = first_sums.y;
      });
    }
  }

  __device__ void Store() {
    ForEachPair([](const float* sums, float2* place) { *place = make_float2(sums[0], sums[1]); });
  }

  float values[WgmmaGradientTile::kSize / 2] = {};

 private:
  // Calls function(two sums, their place in memory) for those that exist. Columns are even in
  // number, so that both of two exist, or none.
  template <class Function>
  __device__ void ForEachPair(const Function& function) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = row_ + half * 8;
      if (row >= product_.num_rows) continue;
      float* const places = product_.sums + int64_t{row} * product_.num_columns + column_;
#pragma unroll
      for (int j = 0; j < WgmmaGradientTile::kSize / 8; ++j) {
        if (column_ + j * 8 < product_.num_columns) {
          function(&values[j * 4 + half * 2], reinterpret_cast<float2*>(places + j * 8));
        }
      }
    }
  }

  const GradientProduct& product_;
  const int row_, column_;
};

// Multiplies what the stages hold, and stores the sums of 16 rows by 128 columns for each warp.
template <Dtype kDtype>
__device__ inline void ConsumeGradient(const GradientProduct& product,
                                       const WgmmaShared<WgmmaGradientTile>& shared,
                                       const TileIndex& first, int warp) {
  using Tile = WgmmaGradientTile;
  constexpr bool kTransposed = true;
  const int panel = warp / 4 * Tile::kPanelBytes;  // of rows
  const int num_whole_stages = product.num_tokens / Tile::kTokens;
  const int num_last_steps = (product.num_tokens % Tile::kTokens + 15) / 16;
  AwaitEarlierWork();
  WgmmaGradientSums sums(product, {first.outputs + warp * 16, first.tokens});

  // Adds one step of 16 tokens.
  const auto add_step = [&](int stage, int step) {
    const hopper::Operand rows(shared.weights(stage) + panel);
    const hopper::Operand columns(shared.tokens(stage), Tile::kPanelBytes);
    hopper::StartProduct<kDtype, kTransposed, kTransposed>(sums.values, rows.At(step * 2048),
                                                           columns.At(step * 2048));
  };
  RingPosition<Tile::kStages> position;
#pragma unroll 1
  for (int number = 0; number < num_whole_stages; ++number) {
    hopper::AwaitBarrier(shared.filled(position.stage), position.parity);
    hopper::FenceProducts();
#pragma unroll
    for (int step = 0; step < Tile::kTokens / 16; ++step) add_step(position.stage, step);
    hopper::CommitProducts();
    // Meanwhile the other three warpgroups on the multiprocessor multiply. Then each warp says that
    // it has read the stage.
    hopper::AwaitProducts<0>();
    if (threadIdx.x % 32 == 0) hopper::Arrive(shared.emptied(position.stage));
    position.Advance();
  }
  // The last stage may be filled in part.
  if (num_last_steps > 0) {
    hopper::AwaitBarrier(shared.filled(position.stage), position.parity);
#pragma unroll 1
    for (int step = 0; step < num_last_steps; ++step) {
      hopper::FenceProducts();
      add_step(position.stage, step);
      hopper::CommitProducts();
      hopper::AwaitProducts<0>();
    }
  }
  sums.Store();
}

// ---- The kernel: one block for each tile ----

template <Dtype kDtype>
__global__ void __launch_bounds__(WgmmaGradientTile::kThreads,
                                  WgmmaGradientTile::kBlocksOnProcessor)
    WgmmaGradientKernel(const __grid_constant__ WgmmaGradientArguments arguments) {
  using Tile = WgmmaGradientTile;
  extern __shared__ unsigned char shared_memory[];
  uint32_t begin = static_cast<uint32_t>(__cvta_generic_to_shared(shared_memory));
  begin = (begin + Tile::kAlignment - 1) / Tile::kAlignment * Tile::kAlignment;
  // Taken from one thread, a value is known to be the same in all of them.
  const WgmmaShared<Tile> shared{__shfl_sync(~0u, begin, 0)};
  const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32, 0);
  LetNextKernelStart();
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < Tile::kStages; ++stage) {
      hopper::InitBarrier(shared.filled(stage), 1);
      hopper::InitBarrier(shared.emptied(stage), Tile::kConsumers * 4);
    }
    hopper::FenceInitBarriers();
  }
  __syncthreads();

  const GradientProduct& product = arguments.product;
  const TileIndex tile =
      TileAt(16, static_cast<int>(blockIdx.x), (product.num_rows + Tile::kSize - 1) / Tile::kSize,
             (product.num_columns + Tile::kSize - 1) / Tile::kSize);
  const TileIndex first{tile.outputs * Tile::kSize, tile.tokens * Tile::kSize};
  if (warp == Tile::kConsumers * 4) {
    ProduceGradient(arguments, shared, first);
  } else {
    ConsumeGradient<kDtype>(product, shared, first, warp);
  }
}

// Enqueues the kernel.
template <Dtype kDtype>
cudaError_t LaunchWgmmaGradientKernel(const GradientProduct& product, cudaStream_t stream) {
  using Tile = WgmmaGradientTile;
  static std::atomic<uint64_t> prepared{0};
  WgmmaGradientArguments arguments{};
  arguments.product = product;
  // Whole steps, whose tokens that do not exist become zeros. TMA takes long for rows that are
  // outside of the tensor.
  arguments.box_tokens = std::min(Tile::kTokens, (product.num_tokens + 15) / 16 * 16);
  cudaError_t error = DescribeRows(product.rows, product.num_tokens, product.num_rows,
                                   arguments.box_tokens, arguments.rows);
  if (error != cudaSuccess) return error;
  error = DescribeRows(product.columns, product.num_tokens, product.num_columns,
                       arguments.box_tokens, arguments.columns);
  if (error != cudaSuccess) return error;
  constexpr TileSize kTile{Tile::kSize, Tile::kSize};
  return LaunchKernel({reinterpret_cast<const void*>(WgmmaGradientKernel<kDtype>),
                       NumTiles(kTile, product.num_rows, product.num_columns), Tile::kThreads,
                       Tile::kSharedBytes, true},
                      &arguments, prepared, stream);
}

}  // namespace swiglu::internal
