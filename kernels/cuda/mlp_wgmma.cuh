// SPDX-License-Identifier: Apache-2.0
//
// The products of an MLP by wgmma, for Hopper. The sums, their order and their bits are those of
// mlp_mma.cuh: each wgmma adds 16 of the depth to float32 accumulators.
//
// A block computes tiles one after the other. One warp, the producer, fills a ring of stages in
// shared memory by tensor copies (TMA); warpgroups, the consumers, multiply what lies there. Each
// stage has two barriers: `filled`, and `emptied`. Weights are the operand with 64 rows and tokens
// the operand with 16 to 256 columns, so few tokens need little padding. While the products of the
// next tile run, a consumer rounds and stores the tile before, so that SwiGLU costs no time.
//
// Bytes moved: each weight once for each tile of tokens, each token once for each tile of outputs.
// Where a tensor ends inside a tile, TMA fills in zeros.
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

// The depth of a panel: 128 bytes of 16-bit elements, the widest row that TMA swizzles.
inline constexpr int kPanelDepth = 64;

// A tile of kOutputs by kTokens, of which each of kConsumers warpgroups computes 64 outputs. A
// stage is kPanels panels deep: for small tiles several, so that what each stage costs is spread
// over more bytes.
template <int kOutputs_, int kTokens_, int kPanels_, int kStages_>
struct WgmmaTileShape {
  static constexpr int kOutputs = kOutputs_, kTokens = kTokens_;
  static constexpr int kPanels = kPanels_, kStages = kStages_;
  static constexpr int kDepth = kPanels * kPanelDepth;
  static constexpr int kConsumers = kOutputs / 64;
  static constexpr int kThreads = (kConsumers + 1) * 128;
  static constexpr int kWeightsPanelBytes = kOutputs * kPanelDepth * 2;
  static constexpr int kTokensPanelBytes = kTokens * kPanelDepth * 2;
  static constexpr int kWeightsBytes = kPanels * kWeightsPanelBytes;
  static constexpr int kStageBytes = kWeightsBytes + kPanels * kTokensPanelBytes;
  static constexpr int kAlignment = 1024;  // of each panel, for the swizzle
  static constexpr int kSharedBytes = kAlignment + kStages * kStageBytes + 2 * kStages * 8;
  // The products of large tiles hide the end of the tile before.
  static constexpr bool kFinishesLater = kTokens >= 128;
  // Whether the consumers need more registers than the producer can have.
  static constexpr bool kMovesRegisters = kTokens == 256;
  static_assert(kOutputs % 64 == 0);
  static_assert(kWeightsPanelBytes % kAlignment == 0 && kTokensPanelBytes % kAlignment == 0);
  static_assert(kSharedBytes <= 227 << 10);
};

// What a kernel gets.
struct WgmmaArguments {
  CUtensorMap weights;
  CUtensorMap tokens[2];
  int box_tokens;  // of the boxes of tokens
  Product product;
};

// The tiles that a block computes, and within them the stages to fill, in order.
template <class Tile>
class WgmmaSchedule {
 public:
  __device__ explicit WgmmaSchedule(const Product& product)
      : num_output_tiles_((product.num_outputs + Tile::kOutputs - 1) / Tile::kOutputs),
        num_token_tiles_((product.num_tokens + Tile::kTokens - 1) / Tile::kTokens),
        index_(static_cast<int>(blockIdx.x)) {}

  __device__ bool has_tile() const { return index_ < num_output_tiles_ * num_token_tiles_; }
  __device__ bool has_next_tile() const {
    return index_ + static_cast<int>(gridDim.x) < num_output_tiles_ * num_token_tiles_;
  }
  __device__ void GoToNextTile() { index_ += static_cast<int>(gridDim.x); }

  // The first output and token of the tile.
  __device__ TileIndex First() const {
    const TileIndex at = TileAt(kGroup, index_, num_output_tiles_, num_token_tiles_);
    return {at.outputs * Tile::kOutputs, at.tokens * Tile::kTokens};
  }

 private:
  static constexpr int kGroup = 32;

  const int num_output_tiles_, num_token_tiles_;
  int index_;
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
    return ring + Tile::kStages * Tile::kStageBytes + stage * 8;
  }
  __device__ uint32_t emptied(int stage) const { return filled(stage) + Tile::kStages * 8; }
};

// ---- The producer: one warp ----

// Copies to stages. One thread of the warp copies, but all go the same way, so that the compiler
// keeps values in the registers of the warp, from where the copies take them. (What the producer
// takes for a stage is the limit of small tiles.)
template <class Tile, WeightsLayout kLayout>
class WgmmaCopies {
 public:
  __device__ WgmmaCopies(const WgmmaArguments& arguments, const WgmmaShared<Tile>& shared)
      : arguments_(arguments), shared_(shared) {}

  __device__ void GoToTile(const TileIndex& first) {
    first_ = first;
    const int num_tokens = min(Tile::kTokens, arguments_.product.num_tokens - first.tokens);
    num_boxes_ = (num_tokens + arguments_.box_tokens - 1) / arguments_.box_tokens;
  }

  // Copies weights from depth k on. Also announces the bytes of the whole stage.
  __device__ void CopyWeights(int stage, int k, int term) const {
    const uint32_t filled = shared_.filled(stage), to = shared_.weights(stage);
    const int panel_bytes = Tile::kWeightsPanelBytes + num_boxes_ * box_bytes();
    hopper::ArriveAndExpect(filled, NumPanels(k) * panel_bytes);
    ForEachPanel(k, [&](int panel, int panel_k) {
      const uint32_t panel_to = to + panel * Tile::kWeightsPanelBytes;
      if constexpr (kLayout == WeightsLayout::kOutputMajor) {
        hopper::CopyBox(arguments_.weights, panel_to, filled, panel_k, first_.outputs);
      } else {
        // Which 8 rows of 16 in gate_up: Wu for the first product, Wg for the second.
        const int half = arguments_.product.is_interleaved ? 1 - term : 0;
#pragma unroll
        for (int i = 0; i < Tile::kOutputs / 64; ++i) {
          hopper::CopyBox(arguments_.weights, panel_to + i * 8192, filled, first_.outputs + i * 64,
                          0, half, panel_k / 8);
        }
      }
    });
  }

  __device__ void CopyTokens(int stage, int k, int term) const {
    const uint32_t filled = shared_.filled(stage), to = shared_.tokens(stage);
    ForEachPanel(k, [&](int panel, int panel_k) {
      const uint32_t panel_to = to + panel * Tile::kTokensPanelBytes;
#pragma unroll 1
      for (int i = 0; i < num_boxes_; ++i) {
        hopper::CopyBox(arguments_.tokens[term], panel_to + i * box_bytes(), filled, panel_k,
                        first_.tokens + i * arguments_.box_tokens);
      }
    });
  }

 private:
  __device__ int box_bytes() const { return arguments_.box_tokens * kPanelDepth * 2; }

  // The panels from depth k on that a stage has.
  __device__ int NumPanels(int k) const {
    if constexpr (Tile::kPanels == 1) return 1;
    return min(Tile::kPanels, (arguments_.product.depth - k + kPanelDepth - 1) / kPanelDepth);
  }

  // Calls function(panel, its first k) for each of them.
  template <class Function>
  __device__ void ForEachPanel(int k, const Function& function) const {
#pragma unroll
    for (int panel = 0; panel < Tile::kPanels; ++panel) {
      const int panel_k = k + panel * kPanelDepth;
      if (panel == 0 || panel_k < arguments_.product.depth) function(panel, panel_k);
    }
  }

  const WgmmaArguments& arguments_;
  const WgmmaShared<Tile>& shared_;
  TileIndex first_{};
  int num_boxes_ = 0;
};

template <class Tile, WeightsLayout kLayout>
__device__ inline void Produce(const WgmmaArguments& arguments, const WgmmaShared<Tile>& shared) {
  const Product& product = arguments.product;
  const int num_terms = product.finish == Finish::kStoreSum ? 2 : 1;
  hopper::PrefetchMap(arguments.weights);
  hopper::PrefetchMap(arguments.tokens[0]);
  if (num_terms > 1) hopper::PrefetchMap(arguments.tokens[1]);
  WgmmaSchedule<Tile> schedule(product);
  WgmmaCopies<Tile, kLayout> copies(arguments, shared);
  copies.GoToTile(schedule.First());

  // Before the earlier work is done, only weights may be touched.
  int num_ahead = 0;
#pragma unroll 1
  for (; num_ahead < Tile::kStages && num_ahead * Tile::kDepth < product.depth; ++num_ahead) {
    if (hopper::IsElected()) copies.CopyWeights(num_ahead, num_ahead * Tile::kDepth, 0);
  }
  AwaitEarlierWork();

  RingPosition<Tile::kStages> position;
  do {
    copies.GoToTile(schedule.First());
#pragma unroll 1
    for (int term = 0; term < num_terms; ++term) {
#pragma unroll 1
      for (int k = 0; k < product.depth; k += Tile::kDepth) {
        if (num_ahead == 0) {
          hopper::AwaitBarrier(shared.emptied(position.stage), position.parity ^ 1);
        }
        if (hopper::IsElected()) {
          if (num_ahead == 0) copies.CopyWeights(position.stage, k, term);
          copies.CopyTokens(position.stage, k, term);
        }
        num_ahead = max(num_ahead - 1, 0);
        position.Advance();
      }
    }
    schedule.GoToNextTile();
  } while (schedule.has_tile());
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
__device__ inline void Consume(const WgmmaArguments& arguments, const WgmmaShared<Tile>& shared,
                               int warp) {
  constexpr bool kTransposed = kLayout == WeightsLayout::kDepthMajor;
  constexpr int kNumTerms = kFinish == Finish::kStoreSum ? 2 : 1;
  constexpr int kSums = Tile::kTokens / 2;
  const Product& product = arguments.product;
  const int consumer = warp / 4;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int first_output = warp * 16;
  const int num_whole_stages = product.depth / Tile::kDepth;
  const int num_last_steps = (product.depth % Tile::kDepth + 15) / 16;
  AwaitEarlierWork();

  float sums[kSums];
  // Adds one step of 16 from a stage.
  const auto add_step = [&](const hopper::Operand& weights, const hopper::Operand& tokens,
                            int step) {
    const int panel = step / 4, within = step % 4;
    hopper::StartProduct<kDtype, kTransposed, false>(
        sums, weights.At(panel * Tile::kWeightsPanelBytes + within * (kTransposed ? 2048 : 32)),
        tokens.At(panel * Tile::kTokensPanelBytes + within * 32));
  };
  const auto weights_in = [&](int stage) {
    return hopper::Operand(shared.weights(stage) + consumer * 8192);
  };
  const auto tokens_in = [&](int stage) { return hopper::Operand(shared.tokens(stage)); };
  // Each warp says that it has read a stage.
  const auto release = [&](int stage) {
    if (lane == 0) hopper::Arrive(shared.emptied(stage));
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
        const hopper::Operand weights = weights_in(position.stage);
        const hopper::Operand tokens = tokens_in(position.stage);
#pragma unroll
        for (int step = 0; step < Tile::kDepth / 16; ++step) add_step(weights, tokens, step);
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
          add_step(weights_in(position.stage), tokens_in(position.stage), step);
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
    } else {
      rounded.template FinishBlocks<kFinish, 0, rounded.kBlocks>(product);
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
// for one inside. So boxes are small enough that few rows of the last one are outside.
template <class Tile>
int BoxTokens(int num_tokens) {
  if (num_tokens <= Tile::kTokens) return num_tokens;
  constexpr int kLeast = std::clamp(Tile::kTokens / 4, 8, 32);
  int box = Tile::kTokens;
  while (box > kLeast && (box - num_tokens % box) % box >= kLeast / 2) box /= 2;
  return box;
}

// Enqueues the kernel of this tile.
template <Dtype kDtype, class Tile, WeightsLayout kLayout, Finish kFinish>
cudaError_t LaunchWgmmaTile(const Product& product, const MlpDevice& device, cudaStream_t stream) {
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
