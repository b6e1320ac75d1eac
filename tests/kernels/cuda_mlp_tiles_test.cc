// SPDX-License-Identifier: Apache-2.0
//
// Each tile of the wgmma path, forced, with each end of a product: the bits are those of the
// mma.sync path, whose bits cuda_mlp_test.cc compares with a plain reference. The grid is small, so
// that a block computes several tiles and finishes each while the next one is computed; or it is
// large, so that a block has one tile.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "kernels/cuda/mlp_launch.cuh"
#include "kernels/cuda/mlp_plan.h"
#include "swiglu/cuda_mlp.h"
#include "swiglu/dtype.h"
#include "tests/kernels/cuda_mlp_problem.h"
#include "tests/kernels/cuda_mlp_reference.h"
#include "tests/kernels/cuda_runner.h"

namespace swiglu::kernels {
namespace {

using internal::Finish;
using internal::HasKernel;
using internal::kWgmmaTiles;
using internal::LaunchMma;
using internal::LaunchWgmma;
using internal::MlpDevice;
using internal::MmaTile;
using internal::NumTiles;
using internal::Product;
using internal::TileSize;
using internal::WeightsLayout;

// The end of a product, and how its weights lie.
struct End {
  Finish finish;
  WeightsLayout layout;
  bool is_interleaved = false;
};
constexpr End kEnds[] = {
    {Finish::kStore, WeightsLayout::kOutputMajor},
    {Finish::kSwiglu, WeightsLayout::kOutputMajor},
    {Finish::kSwigluBackward, WeightsLayout::kOutputMajor},
    {Finish::kStore, WeightsLayout::kDepthMajor},
    {Finish::kStoreSum, WeightsLayout::kDepthMajor, true},
};

struct Shape {
  int num_tokens, num_outputs, depth;
};

// Operands of a product, and room for its outputs.
class Operands {
 public:
  Operands(Dtype dtype, const Shape& shape)
      : dtype_(dtype),
        shape_(shape),
        weights_(int64_t{2} * shape.num_outputs * shape.depth),
        tokens_{Elements(tokens_count()), Elements(tokens_count())},
        dw_(out_count()) {
    uint32_t seed = 0;
    for (const Elements* tensor : {&weights_, &tokens_[0], &tokens_[1], &dw_}) {
      EXPECT_EQ(FillMlp(dtype, {++seed, 1.0f, 0}, tensor->get(), tensor->count()), cudaSuccess);
    }
  }

  int64_t out_count() const { return int64_t{shape_.num_tokens} * shape_.num_outputs; }

  // A product to these outputs, the second one of which first has dw in backward.
  Product Describe(const End& end, const Elements (&out)[3]) const {
    Product product{};
    product.weights = weights_.get();
    for (int i = 0; i < 2; ++i) product.tokens[i] = tokens_[i].get();
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(cudaMemset(out[i].get(), 0x55, out[i].num_bytes()), cudaSuccess);
      product.out[i] = out[i].get();
    }
    EXPECT_EQ(cudaMemcpy(out[1].get(), dw_.get(), dw_.num_bytes(), cudaMemcpyDeviceToDevice),
              cudaSuccess);
    product.dw = out[1].get();
    product.num_tokens = shape_.num_tokens;
    product.num_outputs = shape_.num_outputs;
    product.depth = shape_.depth;
    product.layout = end.layout;
    product.is_interleaved = end.is_interleaved;
    product.finish = end.finish;
    return product;
  }

 private:
  int64_t tokens_count() const { return int64_t{shape_.num_tokens} * shape_.depth; }

  const Dtype dtype_;
  const Shape shape_;
  const Elements weights_, tokens_[2], dw_;
};

// Every tile, every end, on a grid of at most `num_blocks`.
void ExpectTheBitsOfMma(Dtype dtype, const Shape& shape, int num_blocks) {
  const Operands operands(dtype, shape);
  const auto make = [&] { return Elements(operands.out_count() + kGuards); };
  const Elements expected[3] = {make(), make(), make()}, actual[3] = {make(), make(), make()};
  const MlpDevice device{9, num_blocks};
  for (const End& end : kEnds) {
    const Product product = operands.Describe(end, expected);
    ASSERT_EQ(LaunchMma(dtype, product, MmaTile(product, {8, 108}), {8, 108}, nullptr),
              cudaSuccess);
    for (const auto& [tile, cost, cost_backward, cost_sparse] : kWgmmaTiles) {
      if (!HasKernel(tile, end.layout, end.finish)) continue;
      const Product again = operands.Describe(end, actual);
      ASSERT_EQ(dtype == Dtype::kFp16 ? LaunchWgmma<Dtype::kFp16>(again, tile, device, nullptr)
                                      : LaunchWgmma<Dtype::kBf16>(again, tile, device, nullptr),
                cudaSuccess);
      for (int i = 0; i < 3; ++i) {
        ExpectSame(dtype, actual[i].get(), expected[i].get(), actual[i].count(),
                   std::string(Name(dtype)) + " tile " + std::to_string(tile.outputs) + "x" +
                       std::to_string(tile.tokens) + " finish " +
                       std::to_string(static_cast<int>(end.finish)) + " layout " +
                       std::to_string(static_cast<int>(end.layout)) + " depth " +
                       std::to_string(shape.depth) + " out " + std::to_string(i));
      }
      if (testing::Test::HasFailure()) return;
    }
  }
}

class CudaMlpTilesTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string missing = WhyNoMlpPath(MlpPath::kWgmma);
    if (!missing.empty()) GTEST_SKIP() << missing;
  }
};

// 624 outputs and 300 tokens are no whole number of any tile, and depth 1032 ends within a stage.
TEST_F(CudaMlpTilesTest, HaveTheBitsOfMmaIfABlockComputesSeveral) {
  for (const Dtype dtype : kNarrowDtypes) {
    for (const int num_blocks : {1, 2, 3}) {
      ExpectTheBitsOfMma(dtype, {300, 624, 1032}, num_blocks);
    }
  }
}

// So shallow that nothing can be finished later.
TEST_F(CudaMlpTilesTest, HaveTheBitsOfMmaIfTheyAreShallow) {
  for (const Dtype dtype : kNarrowDtypes) {
    for (const int depth : {8, 56, 64, 72, 264}) ExpectTheBitsOfMma(dtype, {300, 624, depth}, 2);
  }
}

TEST_F(CudaMlpTilesTest, HaveTheBitsOfMmaIfABlockComputesOne) {
  for (const Dtype dtype : kNarrowDtypes) {
    for (const int num_tokens : {1, 7, 64, 65, 300}) {
      ExpectTheBitsOfMma(dtype, {num_tokens, 624, 1032}, 1000);
    }
    ExpectTheBitsOfMma(dtype, {9, 16, 72}, 1000);
  }
}

}  // namespace
}  // namespace swiglu::kernels
