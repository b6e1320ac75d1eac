// SPDX-License-Identifier: Apache-2.0
//
// The producer of the wgmma path: the warp that fills stages of shared memory by tensor copies.
// Private to the kernels; mlp_wgmma.cuh says who reads the stages.
#pragma once

#include <cstdint>

#include "kernels/cuda/early_start.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/mlp_plan.h"
#include "kernels/cuda/mlp_wgmma_tile.cuh"

namespace swiglu::internal {

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

}  // namespace swiglu::internal
