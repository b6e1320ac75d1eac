// SPDX-License-Identifier: Apache-2.0
//
// The sums of a tile of the wgmma path as a thread holds them once they are rounded, and how they
// are finished in pieces, some of them while the next tile is computed. Private to the kernels.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "kernels/cuda/mlp_finish.cuh"
#include "kernels/cuda/mlp_order.cuh"
#include "kernels/cuda/mlp_plan.h"
#include "swiglu/dtype.h"

namespace swiglu::internal {

// Hides a value from the compiler, which would else compute the addresses of all pieces ahead of
// the products, and run out of registers.
__device__ inline int Hide(int value) {
  asm volatile("" : "+r"(value));
  return value;
}

// For tiles whose rows are outputs. Of 16 outputs that a warp has, a block is those of 8 tokens.
template <Dtype kDtype, class Tile, Finish kFinish>
struct RoundedOutputs {
  static constexpr int kBlocks = Tile::kColumns / 8, kPieces = 8;
  struct Loaded {};

  __device__ void SetPlace(const TileIndex& first, int warp) {
    output = first.outputs + warp * 16;
    token = first.tokens;
  }

  template <int kPiece>
  __device__ Loaded Load(const Product&) const {
    return {};
  }

  template <int kPiece>
  __device__ void FinishPiece(const Product& product, const Loaded&) const {
    constexpr int kCount = kBlocks / kPieces;
    const int first_token = Hide(token);
#pragma unroll
    for (int i = kPiece * kCount; i < (kPiece + 1) * kCount; ++i) {
      FinishBlock<kDtype>(kFinish, product, blocks[i], output, first_token + i * 8);
    }
  }

  __device__ void FinishAll(const Product& product) const {
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
      FinishBlock<kDtype>(kFinish, product, blocks[i], output, token + i * 8);
    }
  }

  RoundedBlock blocks[kBlocks];
  int output, token;  // of the warp
};

// For tiles whose rows are tokens. Of 16 tokens that a warp has, a block is 8 outputs.
template <Dtype kDtype, class Tile, Finish kFinish>
struct RoundedTokens {
  static constexpr int kBlocks = Tile::kColumns / 8;
  static constexpr int kPieces = (kBlocks + kPartBlocks - 1) / kPartBlocks * 2;
  using Loaded = uint4;

  __device__ void SetPlace(const TileIndex& first, int warp) {
    output = first.outputs;
    token = first.tokens + warp * 16 + static_cast<int>(threadIdx.x) % 32 / 4;
  }

  // Reads what a piece takes beside the sums.
  template <int kPiece>
  __device__ Loaded Load(const Product& product) const {
    if constexpr (kFinish == Finish::kSwigluBackward) {
      return LoadDw(product, Part<kPiece>());
    } else {
      return {};
    }
  }

  template <int kPiece>
  __device__ void FinishPiece(const Product& product, const Loaded& loaded) const {
    uint32_t words[kPartBlocks] = {};
#pragma unroll
    for (int i = 0; i < kPartBlocks; ++i) {
      const int block = kPiece / 2 * kPartBlocks + i;
      if (block < kBlocks) words[i] = kPiece % 2 == 0 ? blocks[block].upper : blocks[block].lower;
    }
    FinishPart<kDtype>(kFinish, product, Part<kPiece>(), words, loaded);
  }

  __device__ void FinishAll(const Product& product) const {
    FinishAll(product, std::make_integer_sequence<int, kPieces>());
  }

  RoundedBlock blocks[kBlocks];
  int output, token;  // of the thread

 private:
  // Every second piece is of the token 8 further.
  template <int kPiece>
  __device__ TokenPart Part() const {
    constexpr int kFirst = kPiece / 2 * kPartBlocks;
    return {Hide(token) + kPiece % 2 * 8, output + kFirst * 8, kBlocks - kFirst};
  }

  // Waits once for all that is read.
  template <int... kPiece>
  __device__ void FinishAll(const Product& product, std::integer_sequence<int, kPiece...>) const {
    const Loaded loaded[] = {Load<kPiece>(product)...};
    (FinishPiece<kPiece>(product, loaded[kPiece]), ...);
  }
};

template <Dtype kDtype, class Tile, Finish kFinish>
using RoundedTile = std::conditional_t<Tile::kTokensAreRows, RoundedTokens<kDtype, Tile, kFinish>,
                                       RoundedOutputs<kDtype, Tile, kFinish>>;

// The finish of a tile during the products of the next one: a piece for each of its first stages,
// one stage after it has been loaded.
template <class Rounded>
class PendingTile {
 public:
  // The stages that it takes.
  static constexpr int kStages = Rounded::kPieces + 1;

  __device__ void Begin() { is_pending_ = true; }

  // Called for stages 0, 1, ... of the next tile.
  __device__ void Continue(const Rounded& rounded, int stage, const Product& product) {
    if (!is_pending_) return;
    Continue(rounded, stage, product, std::make_integer_sequence<int, Rounded::kPieces>());
    is_pending_ = stage < kStages - 1;
  }

 private:
  template <int... kPiece>
  __device__ void Continue(const Rounded& rounded, int stage, const Product& product,
                           std::integer_sequence<int, kPiece...>) {
    ((stage == kPiece + 1 ? rounded.template FinishPiece<kPiece>(product, loaded_) : void()), ...);
    ((stage == kPiece ? void(loaded_ = rounded.template Load<kPiece>(product)) : void()), ...);
  }

  bool is_pending_ = false;
  typename Rounded::Loaded loaded_{};
};

}  // namespace swiglu::internal
