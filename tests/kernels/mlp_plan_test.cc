// SPDX-License-Identifier: Apache-2.0
//
// From an MLP's products to parts and tiles: pure functions, tested without a GPU.
#include "kernels/cuda/mlp_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace swiglu::internal {
namespace {

constexpr MlpDevice kH200{9, 132};

Product OutputMajor(int num_outputs, int depth, int num_tokens) {
  Product product{};
  product.num_outputs = num_outputs;
  product.depth = depth;
  product.num_tokens = num_tokens;
  product.layout = WeightsLayout::kOutputMajor;
  return product;
}

// The products of an MLP with H = 4096 and I = 11008 or 14336.
Product GateUp(int num_tokens, int intermediate = 11008) {
  return OutputMajor(2 * intermediate, 4096, num_tokens);
}
Product Down(int num_tokens, int intermediate = 11008) {
  return OutputMajor(4096, intermediate, num_tokens);
}
Product DepthMajor(Product product) {
  product.layout = WeightsLayout::kDepthMajor;
  return product;
}

TEST(MlpPlanTest, ComputesUpTo8192TokensInOnePart) {
  EXPECT_EQ(PartTokens(1), 1);
  EXPECT_EQ(PartTokens(8192), 8192);
}

TEST(MlpPlanTest, CutsMoreTokensIntoEvenPartsOfWholeTiles) {
  EXPECT_EQ(PartTokens(8193), 4352);
  EXPECT_EQ(PartTokens(16384), 8192);
  EXPECT_EQ(PartTokens(20000), 6912);
  for (const int64_t num_tokens : {int64_t{8193}, int64_t{100'000}, kMaxMlpTokens}) {
    EXPECT_LE(PartTokens(num_tokens), kMaxPartTokens) << num_tokens;
  }
}

TEST(MlpPlanTest, CountsPartialTiles) {
  EXPECT_EQ(NumTiles({128, 64}, 256, 128), 4);
  EXPECT_EQ(NumTiles({128, 64}, 257, 129), 9);
  EXPECT_EQ(NumTiles({64, 16}, 8, 1), 1);
  EXPECT_EQ(NumTiles({64, 16}, 2 << 20, 1 << 24), int64_t{1} << 35);
}

TEST(MlpPlanTest, HasWgmmaOnHopperAlone) {
  EXPECT_FALSE(HasWgmma({8, 108}));
  EXPECT_TRUE(HasWgmma(kH200));
  EXPECT_FALSE(HasWgmma({10, 148}));
  EXPECT_FALSE(HasWgmma({12, 188}));
}

// The fastest tiles that were measured on an H200, or as fast as these.
TEST(MlpPlanTest, ChoosesTheFastestTileOfWgmma) {
  EXPECT_EQ(WgmmaTile(GateUp(1), kH200), (TileSize{176, 64}));
  EXPECT_EQ(WgmmaTile(GateUp(16, 14336), kH200), (TileSize{224, 64}));
  EXPECT_EQ(WgmmaTile(GateUp(64), kH200), (TileSize{176, 64}));
  EXPECT_EQ(WgmmaTile(GateUp(128), kH200), (TileSize{176, 128}));
  EXPECT_EQ(WgmmaTile(GateUp(128, 14336), kH200), (TileSize{224, 128}));
  EXPECT_EQ(WgmmaTile(GateUp(256), kH200), (TileSize{176, 128}));
  EXPECT_EQ(WgmmaTile(GateUp(256, 14336), kH200), (TileSize{224, 128}));
  EXPECT_EQ(WgmmaTile(GateUp(512), kH200), (TileSize{224, 128}));
  EXPECT_EQ(WgmmaTile(GateUp(512, 14336), kH200), (TileSize{176, 128}));
  EXPECT_EQ(WgmmaTile(GateUp(2048), kH200), (TileSize{192, 128}));
  EXPECT_EQ(WgmmaTile(GateUp(2048, 14336), kH200), (TileSize{176, 128}));
  EXPECT_EQ(WgmmaTile(GateUp(8192), kH200), (TileSize{128, 256}));
  EXPECT_EQ(WgmmaTile(GateUp(8192, 14336), kH200), (TileSize{128, 256}));
  EXPECT_EQ(WgmmaTile(Down(16), kH200), (TileSize{64, 16}));
  EXPECT_EQ(WgmmaTile(Down(32), kH200), (TileSize{64, 32}));
  EXPECT_EQ(WgmmaTile(Down(64), kH200), (TileSize{64, 64}));
  EXPECT_EQ(WgmmaTile(Down(128), kH200), (TileSize{64, 128}));
  EXPECT_EQ(WgmmaTile(Down(256), kH200), (TileSize{64, 128}));
  EXPECT_EQ(WgmmaTile(Down(512), kH200), (TileSize{128, 128}));
  EXPECT_EQ(WgmmaTile(Down(2048), kH200), (TileSize{128, 256}));
}

TEST(MlpPlanTest, ChoosesTilesOfBackwardByTheirOwnCosts) {
  const auto backward = [](Product product) {
    product.finish = Finish::kSwigluBackward;
    return product;
  };
  EXPECT_EQ(WgmmaTile(backward(GateUp(512)), kH200), (TileSize{224, 128}));
  EXPECT_EQ(WgmmaTile(backward(GateUp(2048)), kH200), (TileSize{192, 128}));
  EXPECT_NE(WgmmaTile(backward(GateUp(8192)), kH200), (TileSize{128, 256}));
}

TEST(MlpPlanTest, ComputesDepthMajorWeightsByWgmmaInTilesOfWholeBoxes) {
  for (int num_tokens = 1; num_tokens <= 8192; num_tokens += 1 + num_tokens / 8) {
    EXPECT_EQ(WgmmaTile(DepthMajor(GateUp(num_tokens)), kH200).outputs % 64, 0) << num_tokens;
    EXPECT_EQ(WgmmaTile(DepthMajor(Down(num_tokens)), kH200).outputs % 64, 0) << num_tokens;
  }
}

// A part of a GPU may have few multiprocessors.
TEST(MlpPlanTest, ChoosesATileThatThereIsOnAnyDevice) {
  for (const int num_multiprocessors : {1, 16, 114, 132, 1000}) {
    for (const Finish finish : {Finish::kStore, Finish::kSwiglu, Finish::kSwigluBackward}) {
      for (int num_tokens = 1; num_tokens <= 8192; num_tokens += 1 + num_tokens / 4) {
        Product product = GateUp(num_tokens);
        product.finish = finish;
        const TileSize tile = WgmmaTile(product, {9, num_multiprocessors});
        EXPECT_TRUE(HasKernel(tile, product.layout, finish))
            << num_multiprocessors << " " << num_tokens;
        EXPECT_GT(tile.tokens, 0);
      }
    }
  }
}

TEST(MlpPlanTest, CountsTheLastRound) {
  constexpr int kOutputs = 132 * 64;  // one round in tiles of 64 outputs
  EXPECT_EQ(WgmmaTile(OutputMajor(kOutputs, 4096, 128), kH200), (TileSize{64, 128}));
  EXPECT_EQ(WgmmaTile(OutputMajor(kOutputs + 8, 4096, 128), kH200), (TileSize{128, 128}));
}

TEST(MlpPlanTest, ChoosesEachTileOfWgmmaSomewhere) {
  std::vector<TileSize> chosen;
  for (const int intermediate : {11008, 14336}) {
    for (int num_tokens = 1; num_tokens <= 8192; num_tokens *= 2) {
      chosen.push_back(WgmmaTile(GateUp(num_tokens, intermediate), kH200));
      chosen.push_back(WgmmaTile(Down(num_tokens, intermediate), kH200));
    }
  }
  for (const WgmmaTileCost& tile : kWgmmaTiles) {
    EXPECT_NE(std::find(chosen.begin(), chosen.end(), tile.size), chosen.end())
        << tile.size.outputs << " x " << tile.size.tokens;
  }
}

TEST(MlpPlanTest, ComputesDepthMajorWeightsByMmaInTilesOf64OutputsOrMore) {
  for (int num_tokens = 1; num_tokens <= 8192; num_tokens *= 2) {
    EXPECT_GE(MmaTile(DepthMajor(Down(num_tokens)), kH200).outputs, 64) << num_tokens;
  }
}

TEST(MlpPlanTest, ChoosesLowTilesOfMmaForFewTokens) {
  EXPECT_EQ(MmaTile(GateUp(1), kH200), (TileSize{64, 16}));
  EXPECT_EQ(MmaTile(GateUp(16), kH200), (TileSize{64, 16}));
  EXPECT_EQ(MmaTile(Down(16), kH200), (TileSize{32, 16}));
  EXPECT_EQ(MmaTile(GateUp(17), kH200), (TileSize{128, 64}));
  EXPECT_EQ(MmaTile(Down(64), kH200), (TileSize{32, 64}));
  EXPECT_EQ(MmaTile(DepthMajor(Down(16)), kH200), (TileSize{64, 16}));
  EXPECT_EQ(MmaTile(DepthMajor(Down(64)), kH200), (TileSize{64, 64}));
}

TEST(MlpPlanTest, ChoosesLargeTilesOfMmaForManyTokens) {
  EXPECT_EQ(MmaTile(GateUp(65), kH200), (TileSize{128, 128}));
  EXPECT_EQ(MmaTile(Down(2048), kH200), (TileSize{128, 128}));
  EXPECT_EQ(MmaTile(DepthMajor(Down(2048)), kH200), (TileSize{128, 128}));
}

}  // namespace
}  // namespace swiglu::internal
