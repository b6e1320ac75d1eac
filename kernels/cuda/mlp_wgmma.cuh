// SPDX-License-Identifier: Apache-2.0
//
// The products of an MLP by wgmma, for Hopper. The sums, their order and their bits are those of
// mlp_mma.cuh: each wgmma adds 16 of the depth to float32 accumulators.
//
// A block computes tiles one after the other. One warp, the producer, fills a ring of stages in
// shared memory by tensor copies (TMA); warpgroups, the consumers, multiply what lies there. Each
// stage has two barriers: `filled`, and `emptied`. An operand of wgmma has 64 rows; the other one
// has 16 to 256 columns. In tiles for few tokens, the rows are outputs and the tokens are columns,
// so few tokens need little padding. In most tiles for many tokens, the rows are tokens: then a
// thread holds many outputs of a token, and stores 16 bytes at a time. A consumer of a large tile
// finishes it (SwiGLU, and the stores) while the products of its next tile run. It finishes the
// last of its tiles, and small ones, before it goes on.
//
// Bytes moved: each weight once for each tile of tokens, each token once for each tile of outputs.
// Where a tensor ends inside a tile, TMA fills in zeros.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "kernels/cuda/early_start.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/mlp_launch.cuh"
#include "kernels/cuda/mlp_plan.h"
#include "kernels/cuda/mlp_wgmma_copies.cuh"
#include "kernels/cuda/mlp_wgmma_rounded.cuh"
#include "kernels/cuda/mlp_wgmma_tile.cuh"
#include "kernels/cuda/tensor_map.cuh"
#include "swiglu/dtype.h"

namespace swiglu::internal {

// ---- The consumers: warpgroups ----

// The operands of a consumer's products, as they lie in the stages.
template <Dtype kDtype, class Tile, WeightsLayout kLayout>
class WgmmaOperands {
 public:
  __device__ WgmmaOperands(const WgmmaShared<Tile>& shared, int stage, int consumer)
      : weights_(Weights(shared.weights(stage), Tile::kTokensAreRows ? 0 : consumer)),
        tokens_(shared.tokens(stage) + (Tile::kTokensAreRows ? consumer * kRowsBytes : 0)) {}

  // Starts the products of one step of 16 of the stage's depth.
  __device__ void StartStep(float (&sums)[Tile::kColumns / 2], int step) const {
    const int panel = step / 4, within = step % 4;
    const uint64_t weights =
        weights_.At(panel * Tile::kWeightsPanelBytes + within * (kDepthMajor ? 16 * 128 : 32));
    const uint64_t tokens = tokens_.At(panel * Tile::kTokensPanelBytes + within * 32);
    if constexpr (Tile::kTokensAreRows) {
      hopper::StartProduct<kDtype, false, kDepthMajor>(sums, tokens, weights);
    } else {
      hopper::StartProduct<kDtype, kDepthMajor, false>(sums, weights, tokens);
    }
  }

 private:
  static constexpr bool kDepthMajor = kLayout == WeightsLayout::kDepthMajor;
  static constexpr int kRowsBytes = 64 * kPanelDepth * 2;  // 64 outputs or tokens of a panel

  __device__ static hopper::Operand Weights(uint32_t address, int consumer) {
    if constexpr (kDepthMajor && Tile::kTokensAreRows) {
      return hopper::Operand(address, kRowsBytes);
    } else {
      return hopper::Operand(address + consumer * kRowsBytes);
    }
  }

  const hopper::Operand weights_, tokens_;
};

template <Dtype kDtype, class Tile, WeightsLayout kLayout, Finish kFinish>
__device__ inline void Consume(const WgmmaArguments& arguments, const WgmmaShared<Tile>& shared,
                               int warp) {
  constexpr int kNumTerms = kFinish == Finish::kStoreSum ? 2 : 1;
  using Operands = WgmmaOperands<kDtype, Tile, kLayout>;
  using Rounded = RoundedTile<kDtype, Tile, kFinish>;
  const Product& product = arguments.product;
  const int consumer = warp / 4;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int num_whole_stages = product.depth / Tile::kDepth;
  const int num_last_steps = (product.depth % Tile::kDepth + 15) / 16;
  AwaitEarlierWork();

  float sums[Tile::kColumns / 2];
  // Each warp says that it has read a stage.
  const auto release = [&](int stage) {
    if (lane == 0) hopper::Arrive(shared.emptied(stage));
  };

  Rounded rounded;
  PendingTile<Rounded> pending;
  RingPosition<Tile::kStages> position;
  for (WgmmaSchedule<Tile> schedule(product); schedule.has_tile(); schedule.GoToNextTile()) {
    for (int term = 0; term < kNumTerms; ++term) {
#pragma unroll
      for (float& sum : sums) sum = 0;
      int last_stage = 0;
#pragma unroll 1
      for (int number = 0; number < num_whole_stages; ++number) {
        hopper::AwaitBarrier(shared.filled(position.stage), position.parity);
        hopper::FenceProducts();
        const Operands operands(shared, position.stage, consumer);
#pragma unroll
        for (int step = 0; step < Tile::kDepth / 16; ++step) operands.StartStep(sums, step);
        hopper::CommitProducts();
        // Meanwhile, a piece of the tile before.
        if constexpr (Tile::kFinishesLater) pending.Continue(rounded, number, product);
        // The products of the stage before are done.
        hopper::AwaitProducts<1>();
        if (number > 0) release(last_stage);
        last_stage = position.stage;
        position.Advance();
      }
      hopper::AwaitProducts<0>();
      if (num_whole_stages > 0) release(last_stage);
      // The last stage may be filled in part.
      if (num_last_steps > 0) {
        hopper::AwaitBarrier(shared.filled(position.stage), position.parity);
#pragma unroll 1
        for (int step = 0; step < num_last_steps; ++step) {
          hopper::FenceProducts();
          Operands(shared, position.stage, consumer).StartStep(sums, step);
          hopper::CommitProducts();
          hopper::AwaitProducts<0>();
        }
        release(position.stage);
        position.Advance();
      }

      if (term == 1) {
#pragma unroll
        for (int i = 0; i < rounded.kBlocks; ++i) {
          rounded.blocks[i] = Add<kDtype>(rounded.blocks[i], Round<kDtype>(&sums[4 * i]));
        }
      } else {
#pragma unroll
        for (int i = 0; i < rounded.kBlocks; ++i) rounded.blocks[i] = Round<kDtype>(&sums[4 * i]);
      }
    }

    rounded.SetPlace(schedule.First(), warp);
    if (Tile::kFinishesLater && num_whole_stages >= pending.kStages && schedule.has_next_tile()) {
      pending.Begin();
    } else {
      rounded.FinishAll(product);
    }
  }
}

// ---- The kernel ----

template <Dtype kDtype, class Tile, WeightsLayout kLayout, Finish kFinish>
__global__ void __launch_bounds__(Tile::kThreads, 1)
    WgmmaKernel(const __grid_constant__ WgmmaArguments arguments) {
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

  // The first warpgroup gives most of its registers to the others where these need them.
  if (warp < 4) {
    if constexpr (Tile::kMovesRegisters) hopper::KeepRegisters<40>();
    if (warp == 0) Produce<Tile, kLayout>(arguments, shared);
  } else {
    if constexpr (Tile::kMovesRegisters) hopper::TakeRegisters<232>();
    Consume<kDtype, Tile, kLayout, kFinish>(arguments, shared, warp - 4);
  }
}

// ---- The launch ----

// Describes a row-major matrix of 16-bit elements to TMA, in boxes of kPanelDepth columns.
inline cudaError_t DescribeRows(const uint16_t* data, int num_rows, int num_columns, int box_rows,
                                CUtensorMap& map) {
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(num_columns),
                              static_cast<cuuint64_t>(num_rows)};
  const cuuint64_t strides[] = {sizes[0] * 2};
  const cuuint32_t box[] = {kPanelDepth, static_cast<cuuint32_t>(box_rows)};
  return EncodeMap(data, sizes, strides, box, map);
}

// Describes depth-major weights: columns are outputs, and rows come in groups of 8, of which every
// second one counts if gate and up are interleaved. A box is kPanelDepth rows, 64 columns wide.
inline cudaError_t DescribeDepth(const Product& product, CUtensorMap& map) {
  const auto num_outputs = static_cast<cuuint64_t>(product.num_outputs);
  const cuuint64_t halves = product.is_interleaved ? 2 : 1;
  const cuuint64_t sizes[] = {num_outputs, 8, halves, static_cast<cuuint64_t>(product.depth / 8)};
  const cuuint64_t strides[] = {num_outputs * 2, num_outputs * 16, num_outputs * 16 * halves};
  const cuuint32_t box[] = {64, 8, 1, kPanelDepth / 8};
  return EncodeMap(product.weights, sizes, strides, box, map);
}

// Returns the tokens of a box. TMA takes much longer for a row that is outside of the tensor than
// for one inside. So boxes are small enough that few rows of the last one are outside. If there are
// several, they are whole groups of 8 rows, as the swizzle needs.
template <class Tile>
int BoxTokens(int num_tokens) {
  if (num_tokens <= Tile::kTokens) return num_tokens;
  constexpr int kLeast = std::clamp(Tile::kTokens / 4, 8, 32);
  static_assert(kLeast % 8 == 0 && Tile::kTokens % kLeast == 0);
  int box = Tile::kTokens;
  while (box > kLeast && (box - num_tokens % box) % box >= kLeast / 2) box /= 2;
  return box;
}

// Enqueues the kernel of this tile.
template <Dtype kDtype, class Tile, WeightsLayout kLayout, Finish kFinish>
cudaError_t LaunchWgmmaTile(const Product& product, const MlpDevice& device, cudaStream_t stream) {
  static_assert(HasKernel({Tile::kOutputs, Tile::kTokens}, kLayout, kFinish));
  static std::atomic<uint64_t> prepared{0};
  WgmmaArguments arguments{};
  arguments.product = product;
  arguments.box_tokens = BoxTokens<Tile>(product.num_tokens);
  cudaError_t error = kLayout == WeightsLayout::kOutputMajor
                          ? DescribeRows(product.weights, product.num_outputs, product.depth,
                                         Tile::kOutputs, arguments.weights)
                          : DescribeDepth(product, arguments.weights);
  for (int term = 0; term < (kFinish == Finish::kStoreSum ? 2 : 1); ++term) {
    if (error != cudaSuccess) return error;
    error = DescribeRows(product.tokens[term], product.num_tokens, product.depth,
                         arguments.box_tokens, arguments.tokens[term]);
  }
  if (error != cudaSuccess) return error;
  const int64_t num_tiles =
      NumTiles({Tile::kOutputs, Tile::kTokens}, product.num_outputs, product.num_tokens);
  return LaunchKernel({reinterpret_cast<const void*>(WgmmaKernel<kDtype, Tile, kLayout, kFinish>),
                       std::min(num_tiles, int64_t{device.num_multiprocessors}), Tile::kThreads,
                       Tile::kSharedBytes, true},
                      &arguments, prepared, stream);
}

}  // namespace swiglu::internal
