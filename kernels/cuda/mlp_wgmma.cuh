// SPDX-License-Identifier: Apache-2.0
//
// The products of an MLP by wgmma, for Hopper. The sums, their order and their bits are those of
// mlp_mma.cuh: each wgmma adds 16 of the depth to float32 accumulators.
//
// A block computes tiles one after the other. One thread, the producer, fills a ring of stages in
// shared memory by tensor copies (TMA); warpgroups, the consumers, multiply what lies there. Each
// stage has two barriers: `filled`, and `emptied`. Weights are the operand with 64 rows and tokens
// the operand with 16 to 256 columns, so few tokens need little padding. While the products of the
// next tile run, a consumer rounds and stores the tile before, so that SwiGLU costs no time.
//
// Blocks may form clusters of two that compute different outputs for the same tokens: each copies
// half of the tokens to both.
//
// Bytes moved: each weight once for each tile of tokens, each token once for each tile (or, in a
// cluster, two tiles) of outputs. Where a tensor ends inside a tile, TMA fills in zeros.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <utility>

#include "kernels/cuda/early_start.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/mlp_finish.cuh"
#include "kernels/cuda/mlp_launch.cuh"
#include "kernels/cuda/mlp_order.cuh"
#include "kernels/cuda/mlp_plan.h"
#include "kernels/cuda/tensor_map.cuh"
#include "swiglu/dtype.h"

namespace swiglu::internal {

// The depth of a stage: 128 bytes of 16-bit elements, the widest row that TMA swizzles.
inline constexpr int kWgmmaDepth = 64;

// A tile of kOutputs by kTokens. Each of kConsumers warpgroups computes 64 outputs. A tile of 32
// outputs is computed as 64, of which the last 32 are not used.
template <int kOutputs_, int kTokens_, int kStages_, int kCluster_, int kBlocksPerProcessor_>
struct WgmmaTileShape {
  static constexpr int kOutputs = kOutputs_, kTokens = kTokens_;
  static constexpr int kStages = kStages_;
  static constexpr int kCluster = kCluster_;  // blocks in a cluster: 1 or 2
  static constexpr int kBlocksPerProcessor = kBlocksPerProcessor_;
  static constexpr int kConsumers = kOutputs <= 64 ? 1 : kOutputs / 64;
  static constexpr int kThreads = (kConsumers + 1) * 128;
  static constexpr int kWeightsBytes = kOutputs * kWgmmaDepth * 2;
  static constexpr int kTokensBytes = kTokens * kWgmmaDepth * 2;
  static constexpr int kStageBytes = kWeightsBytes + kTokensBytes;
  // A product always reads 64 outputs, so with 32 it reads past the end of the last stage.
  static constexpr int kPaddingBytes = kOutputs < 64 ? 8192 : 0;
  static constexpr int kAlignment = 1024;  // of each operand, for the swizzle
  static constexpr int kSharedBytes =
      kAlignment + kStages * kStageBytes + kPaddingBytes + 2 * kStages * 8;
  // The products of large tiles hide the end of the tile before.
  static constexpr bool kFinishesLater = kTokens >= 128;
};

// What a kernel gets.
struct WgmmaArguments {
  CUtensorMap weights;
  CUtensorMap tokens[2];
  Product product;
};

// The tiles that a block computes, and within them the stages to fill, in order.
template <class Tile>
class WgmmaSchedule {
 public:
  __device__ explicit WgmmaSchedule(const Product& product)
      : num_output_tiles_((product.num_outputs + Tile::kOutputs * Tile::kCluster - 1) /
                          (Tile::kOutputs * Tile::kCluster)),
        num_token_tiles_((product.num_tokens + Tile::kTokens - 1) / Tile::kTokens),
        index_(static_cast<int>(blockIdx.x) / Tile::kCluster),
        rank_(Tile::kCluster == 1 ? 0 : static_cast<int>(hopper::ClusterRank())) {}

  __device__ bool has_tile() const { return index_ < num_output_tiles_ * num_token_tiles_; }
  __device__ bool has_next_tile() const {
    return index_ + Step() < num_output_tiles_ * num_token_tiles_;
  }
  __device__ void GoToNextTile() { index_ += Step(); }

  // The first output and token of this block's tile.
  __device__ TileIndex First() const {
    const TileIndex at = TileAt<kGroup>(index_, num_output_tiles_, num_token_tiles_);
    return {(at.outputs * Tile::kCluster + rank_) * Tile::kOutputs, at.tokens * Tile::kTokens};
  }

 private:
  static constexpr int kGroup = 16 / Tile::kCluster;

  __device__ int Step() const { return static_cast<int>(gridDim.x) / Tile::kCluster; }

  const int num_output_tiles_, num_token_tiles_;
  int index_;
  const int rank_;
};

// A stage of the ring, and the parity of its barriers' phases.
template <int kStages>
struct RingPosition {
  int stage = 0;
  uint32_t parity = 0;

  __device__ void Advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// Addresses in shared memory.
template <class Tile>
struct WgmmaShared {
  uint32_t ring;
  __device__ uint32_t weights(int stage) const { return ring + stage * Tile::kStageBytes; }
  __device__ uint32_t tokens(int stage) const { return weights(stage) + Tile::kWeightsBytes; }
  __device__ uint32_t filled(int stage) const {
    return ring + Tile::kStages * Tile::kStageBytes + Tile::kPaddingBytes + stage * 8;
  }
  __device__ uint32_t emptied(int stage) const { return filled(stage) + Tile::kStages * 8; }
};

// ---- The producer: one thread ----

// Goes through the loads of a block.
template <class Tile, WeightsLayout kLayout>
class WgmmaLoads {
 public:
  __device__ WgmmaLoads(const WgmmaArguments& arguments, const WgmmaShared<Tile>& shared)
      : arguments_(arguments),
        shared_(shared),
        schedule_(arguments.product),
        num_terms_(arguments.product.finish == Finish::kStoreSum ? 2 : 1) {
    if (has_load()) first_ = schedule_.First();
  }

  __device__ bool has_load() const { return schedule_.has_tile(); }

  __device__ void Advance() {
    position_.Advance();
    k_ += kWgmmaDepth;
    if (k_ < arguments_.product.depth) return;
    k_ = 0;
    if (++term_ < num_terms_) return;
    term_ = 0;
    schedule_.GoToNextTile();
    if (has_load()) first_ = schedule_.First();
  }

  __device__ void AwaitStage() const {
    hopper::AwaitBarrier(shared_.emptied(position_.stage), position_.parity ^ 1);
  }

  __device__ void CopyWeights() const {
    const uint32_t filled = shared_.filled(position_.stage);
    const uint32_t to = shared_.weights(position_.stage);
    hopper::ArriveAndExpect(filled, Tile::kStageBytes);
    if constexpr (kLayout == WeightsLayout::kOutputMajor) {
      hopper::CopyBox(arguments_.weights, to, filled, k_, first_.outputs);
    } else {
#pragma unroll
      for (int i = 0; i < Tile::kOutputs / 64; ++i) {
        hopper::CopyBox(arguments_.weights, to + i * 8192, filled, first_.outputs + i * 64, 0,
                        half(), k_ / 8);
      }
    }
  }

  __device__ void PrefetchWeights() const {
    if constexpr (kLayout == WeightsLayout::kOutputMajor) {
      hopper::PrefetchBox(arguments_.weights, k_, first_.outputs);
    } else {
#pragma unroll
      for (int i = 0; i < Tile::kOutputs / 64; ++i) {
        hopper::PrefetchBox(arguments_.weights, first_.outputs + i * 64, 0, half(), k_ / 8);
      }
    }
  }

  __device__ void CopyTokens() const {
    const uint32_t filled = shared_.filled(position_.stage);
    const uint32_t to = shared_.tokens(position_.stage);
    const CUtensorMap& map = arguments_.tokens[term_];
    if constexpr (Tile::kCluster == 1) {
      hopper::CopyBox(map, to, filled, k_, first_.tokens);
    } else {
      constexpr int kShare = Tile::kTokens / Tile::kCluster;
      const int rank = static_cast<int>(hopper::ClusterRank());
      hopper::CopyBoxToCluster(map, to + rank * kShare * kWgmmaDepth * 2, filled, k_,
                               first_.tokens + rank * kShare, (1 << Tile::kCluster) - 1);
    }
  }

 private:
  // Which 8 rows of 16 in gate_up: Wu for the first product, Wg for the second.
  __device__ int half() const { return arguments_.product.is_interleaved && term_ == 0 ? 1 : 0; }

  const WgmmaArguments& arguments_;
  const WgmmaShared<Tile>& shared_;
  WgmmaSchedule<Tile> schedule_;
  const int num_terms_;
  TileIndex first_{};
  int k_ = 0, term_ = 0;
  RingPosition<Tile::kStages> position_;
};

template <class Tile, WeightsLayout kLayout>
__device__ inline void Produce(const WgmmaArguments& arguments, const WgmmaShared<Tile>& shared) {
  hopper::PrefetchMap(arguments.weights);
  hopper::PrefetchMap(arguments.tokens[0]);
  if (arguments.product.finish == Finish::kStoreSum) hopper::PrefetchMap(arguments.tokens[1]);

  // Before the earlier work is done, only weights may be touched: those of the first stages, and,
  // as far as the L2 should hold them, those after.
  WgmmaLoads<Tile, kLayout> weights(arguments, shared), tokens(arguments, shared);
#pragma unroll 1
  for (int i = 0; i < Tile::kStages && weights.has_load(); ++i) {
    weights.CopyWeights();
    weights.Advance();
  }
  constexpr int kPrefetchedBytes = 64 << 10;
  WgmmaLoads<Tile, kLayout> later = weights;
#pragma unroll 1
  for (int i = 0; i < kPrefetchedBytes / Tile::kWeightsBytes && later.has_load(); ++i) {
    later.PrefetchWeights();
    later.Advance();
  }
  AwaitEarlierWork();
#pragma unroll 1
  for (int i = 0; i < Tile::kStages && tokens.has_load(); ++i) {
    tokens.CopyTokens();
    tokens.Advance();
  }

#pragma unroll 1
  for (; weights.has_load(); weights.Advance()) {
    weights.AwaitStage();
    weights.CopyWeights();
    weights.CopyTokens();
  }
}

// ---- The consumers: warpgroups ----

// A tile's sums, rounded, and where they belong.
template <Dtype kDtype, class Tile>
struct RoundedTile {
  static constexpr int kBlocks = Tile::kTokens / 8;

  // Finishes blocks kFirst to kFirst + kCount - 1.
  template <Finish kFinish, int kFirst, int kCount>
  __device__ void FinishBlocks(const Product& product) const {
    // Hides the value from the compiler, which would compute the addresses of all pieces ahead of
    // the products, and run out of registers.
    int first_token = token;
    asm volatile("" : "+r"(first_token));
#pragma unroll
    for (int i = kFirst; i < kFirst + kCount; ++i) {
      FinishBlock<kDtype>(kFinish, product, blocks[i], output, first_token + i * 8);
    }
  }

  RoundedBlock blocks[kBlocks];
  int output, token;
};

// Finishes piece number `number` of sizeof...(kPiece) equal ones.
template <Finish kFinish, class Rounded, int... kPiece>
__device__ inline void FinishPiece(const Rounded& rounded, int number, const Product& product,
                                   std::integer_sequence<int, kPiece...>) {
  constexpr int kCount = Rounded::kBlocks / static_cast<int>(sizeof...(kPiece));
  ((number == kPiece ? rounded.template FinishBlocks<kFinish, kPiece * kCount, kCount>(product)
                     : void()),
   ...);
}

template <Dtype kDtype, class Tile, WeightsLayout kLayout, Finish kFinish>
__device__ inline void Consume(const WgmmaArguments& arguments, const WgmmaShared<Tile>& shared) {
  constexpr bool kTransposed = kLayout == WeightsLayout::kDepthMajor;
  constexpr int kNumTerms = kFinish == Finish::kStoreSum ? 2 : 1;
  constexpr int kSums = Tile::kTokens / 2;
  const Product& product = arguments.product;
  const int consumer = static_cast<int>(threadIdx.x) / 128 - 1;
  const int warp = static_cast<int>(threadIdx.x) / 32 % 4;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int first_output = consumer * 64 + warp * 16;
  const bool has_outputs = first_output < Tile::kOutputs;
  const int num_whole_stages = product.depth / kWgmmaDepth;
  const int num_last_steps = (product.depth % kWgmmaDepth + 15) / 16;
  AwaitEarlierWork();

  // Adds one step of 16 from a stage.
  float sums[kSums];
  const auto add_step = [&](int stage, int step) {
    const uint32_t weights = shared.weights(stage) + consumer * 8192;
    hopper::StartProduct<kDtype, kTransposed>(
        sums, hopper::DescribeOperand(weights + step * (kTransposed ? 2048 : 32)),
        hopper::DescribeOperand(shared.tokens(stage) + step * 32));
  };
  // Each warp tells each block of the cluster that it has read a stage.
  const auto release = [&](int stage) {
    if constexpr (Tile::kCluster == 1) {
      if (lane == 0) hopper::Arrive(shared.emptied(stage));
    } else {
      if (lane < Tile::kCluster) hopper::ArriveRemotely(shared.emptied(stage), lane);
    }
  };

  RoundedTile<kDtype, Tile> rounded;
  constexpr int kPieces = 8;
  bool is_pending = false;
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
#pragma unroll
        for (int step = 0; step < kWgmmaDepth / 16; ++step) add_step(position.stage, step);
        hopper::CommitProducts();
        // Meanwhile, a piece of the tile before.
        if constexpr (Tile::kFinishesLater) {
          if (is_pending && number < kPieces) {
            FinishPiece<kFinish>(rounded, number, product,
                                 std::make_integer_sequence<int, kPieces>());
            is_pending = number < kPieces - 1;
          }
        }
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
          add_step(position.stage, step);
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

    const TileIndex first = schedule.First();
    rounded.output = first.outputs + first_output;
    rounded.token = first.tokens;
    if (Tile::kFinishesLater && num_whole_stages >= kPieces && schedule.has_next_tile()) {
      is_pending = true;
    } else if (has_outputs) {
      rounded.template FinishBlocks<kFinish, 0, rounded.kBlocks>(product);
    }
  }
}

// ---- The kernel ----

template <Dtype kDtype, class Tile, WeightsLayout kLayout, Finish kFinish>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocksPerProcessor)
    WgmmaKernel(const __grid_constant__ WgmmaArguments arguments) {
  extern __shared__ unsigned char shared_memory[];
  const uint32_t begin = static_cast<uint32_t>(__cvta_generic_to_shared(shared_memory));
  const WgmmaShared<Tile> shared{(begin + Tile::kAlignment - 1) / Tile::kAlignment *
                                 Tile::kAlignment};
  LetNextKernelStart();
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < Tile::kStages; ++stage) {
      hopper::InitBarrier(shared.filled(stage), 1);
      hopper::InitBarrier(shared.emptied(stage), Tile::kConsumers * 4 * Tile::kCluster);
    }
    hopper::FenceInitBarriers();
  }
  __syncthreads();
  if constexpr (Tile::kCluster > 1) hopper::SyncCluster();

  // The first warpgroup gives most of its registers to the others where these need them.
  constexpr bool kMovesRegisters = Tile::kTokens == 256 && Tile::kThreads > 256;
  if (threadIdx.x < 128) {
    if constexpr (kMovesRegisters) hopper::KeepRegisters<40>();
    if (threadIdx.x == 0) Produce<Tile, kLayout>(arguments, shared);
  } else {
    if constexpr (kMovesRegisters) hopper::TakeRegisters<232>();
    Consume<kDtype, Tile, kLayout, kFinish>(arguments, shared);
  }
  // No block ends while another may still write to its shared memory.
  if constexpr (Tile::kCluster > 1) {
    __syncthreads();
    hopper::SyncCluster();
  }
}

// ---- The launch ----

// Describes a row-major matrix of 16-bit elements to TMA, in boxes of kWgmmaDepth columns.
inline cudaError_t DescribeRows(const uint16_t* data, int num_rows, int num_columns, int box_rows,
                                CUtensorMap& map) {
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(num_columns),
                              static_cast<cuuint64_t>(num_rows)};
  const cuuint64_t strides[] = {sizes[0] * 2};
  const cuuint32_t box[] = {kWgmmaDepth, static_cast<cuuint32_t>(box_rows)};
  return EncodeMap(data, sizes, strides, box, map);
}

// Describes depth-major weights: columns are outputs, and rows come in groups of 8, of which every
// second one counts if gate and up are interleaved. A box is kWgmmaDepth rows, 64 columns wide.
inline cudaError_t DescribeDepth(const Product& product, CUtensorMap& map) {
  const auto num_outputs = static_cast<cuuint64_t>(product.num_outputs);
  const cuuint64_t halves = product.is_interleaved ? 2 : 1;
  const cuuint64_t sizes[] = {num_outputs, 8, halves, static_cast<cuuint64_t>(product.depth / 8)};
  const cuuint64_t strides[] = {num_outputs * 2, num_outputs * 16, num_outputs * 16 * halves};
  const cuuint32_t box[] = {64, 8, 1, kWgmmaDepth / 8};
  return EncodeMap(product.weights, sizes, strides, box, map);
}

// Enqueues the kernel of this tile.
template <Dtype kDtype, class Tile, WeightsLayout kLayout, Finish kFinish>
cudaError_t LaunchWgmmaTile(const Product& product, const MlpDevice& device, cudaStream_t stream) {
  static std::atomic<uint64_t> prepared{0};
  WgmmaArguments arguments{};
  arguments.product = product;
  cudaError_t error = kLayout == WeightsLayout::kOutputMajor
                          ? DescribeRows(product.weights, product.num_outputs, product.depth,
                                         Tile::kOutputs, arguments.weights)
                          : DescribeDepth(product, arguments.weights);
  for (int term = 0; term < (kFinish == Finish::kStoreSum ? 2 : 1); ++term) {
    if (error != cudaSuccess) return error;
    error = DescribeRows(product.tokens[term], product.num_tokens, product.depth,
                         Tile::kTokens / Tile::kCluster, arguments.tokens[term]);
  }
  if (error != cudaSuccess) return error;
  const TileSize cluster{Tile::kOutputs * Tile::kCluster, Tile::kTokens};
  const int64_t num_clusters =
      std::min(NumTiles(cluster, product.num_outputs, product.num_tokens),
               int64_t{device.num_multiprocessors} * Tile::kBlocksPerProcessor / Tile::kCluster);
  return LaunchKernel(
      {reinterpret_cast<const void*>(WgmmaKernel<kDtype, Tile, kLayout, kFinish>),
       num_clusters * Tile::kCluster, Tile::kThreads, Tile::kSharedBytes, Tile::kCluster, true},
      &arguments, prepared, stream);
}

}  // namespace swiglu::internal
