// SPDX-License-Identifier: Apache-2.0
//
// What the tests of the MLP on the CPU share: an MLP with random weights and inputs, memory for its
// calls, and its products computed one by one.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "swiglu/cpu.h"
#include "swiglu/cpu_mlp.h"
#include "swiglu/cpu_pool.h"
#include "tests/kernels/patterns.h"

namespace swiglu::kernels {

using Lanes = std::vector<uint16_t>;

// Patterns in [-1, 1) times `scale`.
inline Lanes RandomLanes(Dtype dtype, int64_t num_elements, uint32_t seed, double scale = 1.0) {
  std::mt19937 random(seed);
  Lanes lanes(static_cast<size_t>(num_elements));
  for (uint16_t& lane : lanes) {
    const double value = (static_cast<double>(random()) * 0x1p-31 - 1) * scale;
    lane = static_cast<uint16_t>(Nearest(dtype, value));
  }
  return lanes;
}

// Any patterns at all, one in `every`; otherwise as above.
inline Lanes LanesWithSpecials(Dtype dtype, int64_t num_elements, uint32_t seed, uint32_t every) {
  std::mt19937 random(seed);
  Lanes lanes = RandomLanes(dtype, num_elements, seed + 1);
  for (uint16_t& lane : lanes) {
    if (random() % every == 0) lane = static_cast<uint16_t>(random());
  }
  return lanes;
}

inline Patterns AsPatterns(const Lanes& lanes) { return {lanes.begin(), lanes.end()}; }

inline float Widened(Dtype dtype, uint16_t lane) { return static_cast<float>(Value(dtype, lane)); }

inline uint16_t Rounded(Dtype dtype, float value) {
  return static_cast<uint16_t>(Nearest(dtype, value));
}

struct Sizes {
  int64_t hidden, intermediate;
};

// The weights and inputs of one MLP.
struct Mlp {
  Dtype dtype;
  Sizes sizes;
  int64_t num_tokens;
  Lanes gate, up, down, x, dy;

  Mlp(Dtype dtype_in, Sizes sizes_in, int64_t num_tokens_in, uint32_t seed = 1)
      : dtype(dtype_in), sizes(sizes_in), num_tokens(num_tokens_in) {
    const int64_t h = sizes.hidden, i = sizes.intermediate;
    gate = RandomLanes(dtype, i * h, seed);
    up = RandomLanes(dtype, i * h, seed + 1);
    down = RandomLanes(dtype, i * h, seed + 2);
    x = RandomLanes(dtype, num_tokens * h, seed + 3);
    dy = RandomLanes(dtype, num_tokens * h, seed + 4);
  }
  MlpMatrices Matrices() const {
    return {dtype, sizes.hidden, sizes.intermediate, gate.data(), up.data(), down.data()};
  }
};

// The tokens from `first` on.
inline Mlp Part(const Mlp& all, int64_t first, int64_t num_tokens) {
  Mlp part = all;
  part.num_tokens = num_tokens;
  const int64_t h = all.sizes.hidden;
  part.x.assign(all.x.begin() + first * h, all.x.begin() + (first + num_tokens) * h);
  part.dy.assign(all.dy.begin() + first * h, all.dy.begin() + (first + num_tokens) * h);
  return part;
}

inline std::unique_ptr<const CpuMlpWeights> Pack(const Mlp& mlp) {
  std::unique_ptr<const CpuMlpWeights> weights;
  EXPECT_EQ(CpuMlpWeights::Create(mlp.Matrices(), MlpPacking::kForwardAndBackward, weights),
            MlpStatus::kOk);
  return weights;
}

// Memory with the alignment of a workspace, filled with NaNs. Its end is guarded.
class Workspace {
 public:
  explicit Workspace(int64_t num_bytes)
      : num_bytes_(static_cast<size_t>(num_bytes)), blocks_(num_bytes_ / 64 + 2, Block::Full()) {}
  ~Workspace() {
    for (size_t i = num_bytes_; i < num_bytes_ + 64; ++i) {
      EXPECT_EQ(data()[i], std::byte{0xff}) << "written past the workspace's end";
    }
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  std::byte* data() { return blocks_[0].bytes; }
  std::span<std::byte> span() { return {data(), num_bytes_}; }

 private:
  struct alignas(64) Block {
    std::byte bytes[64];
    static Block Full() {
      Block block;
      for (std::byte& byte : block.bytes) byte = std::byte{0xff};
      return block;
    }
  };
  const size_t num_bytes_;
  std::vector<Block> blocks_;
};

inline Lanes Forward(const Mlp& mlp, const CpuMlpWeights& weights, CpuPool& pool) {
  Lanes y(mlp.x.size(), 0x5555);
  Workspace workspace(weights.ForwardWorkspaceBytes(mlp.num_tokens));
  EXPECT_EQ(weights.Forward({mlp.x.data(), y.data(), mlp.num_tokens, workspace.span()}, pool),
            MlpStatus::kOk);
  return y;
}

inline Lanes Backward(const Mlp& mlp, const CpuMlpWeights& weights, CpuPool& pool) {
  Lanes dx(mlp.x.size(), 0x5555);
  Workspace workspace(weights.BackwardWorkspaceBytes(mlp.num_tokens));
  const MlpBackward call{mlp.x.data(), mlp.dy.data(), dx.data(), mlp.num_tokens, workspace.span()};
  EXPECT_EQ(weights.Backward(call, pool), MlpStatus::kOk);
  return dx;
}

inline std::vector<float> AllWidened(Dtype dtype, const Lanes& lanes) {
  std::vector<float> values;
  values.reserve(lanes.size());
  for (const uint16_t lane : lanes) values.push_back(Widened(dtype, lane));
  return values;
}

// The right-hand side of a product: the matrix, or its transpose.
struct RightSide {
  const Lanes& matrix;
  bool is_transposed;
};

// One accumulator for each element, k ascending.
inline Lanes Multiply(Dtype dtype, const Lanes& tokens, const RightSide& right, int64_t depth,
                      int64_t num_outputs) {
  const std::vector<float> x = AllWidened(dtype, tokens), w = AllWidened(dtype, right.matrix);
  const int64_t k_step = right.is_transposed ? 1 : num_outputs;
  const int64_t j_step = right.is_transposed ? depth : 1;
  Lanes products;
  for (const float* token = x.data(); token < x.data() + x.size(); token += depth) {
    for (int64_t j = 0; j < num_outputs; ++j) {
      const float* const column = w.data() + j * j_step;
      float sum = 0;
      for (int64_t k = 0; k < depth; ++k) sum = std::fma(token[k], column[k * k_step], sum);
      products.push_back(Rounded(dtype, sum));
    }
  }
  return products;
}

// What backward computes before dx, by the sums above and the element-wise kernels.
struct Activations {
  Lanes h, df, de;
};

inline Activations Activate(const Mlp& mlp) {
  const int64_t h_size = mlp.sizes.hidden, i_size = mlp.sizes.intermediate;
  const Lanes e = Multiply(mlp.dtype, mlp.x, {mlp.gate, true}, h_size, i_size);
  const Lanes g = Multiply(mlp.dtype, mlp.x, {mlp.up, true}, h_size, i_size);
  const Lanes dw = Multiply(mlp.dtype, mlp.dy, {mlp.down, false}, h_size, i_size);
  Activations all{Lanes(e.size()), Lanes(e.size()), Lanes(e.size())};
  const BackwardSegment segment{dw.data(),
                                e.data(),
                                g.data(),
                                all.h.data(),
                                all.df.data(),
                                all.de.data(),
                                static_cast<int64_t>(e.size())};
  EXPECT_EQ(BackwardCpu(mlp.dtype, {&segment, 1}), KernelStatus::kOk);
  return all;
}

inline std::string Describe(const Mlp& mlp) {
  return std::string(Name(mlp.dtype)) + " H=" + std::to_string(mlp.sizes.hidden) +
         " I=" + std::to_string(mlp.sizes.intermediate) + " M=" + std::to_string(mlp.num_tokens);
}

}  // namespace swiglu::kernels
