// SPDX-License-Identifier: Apache-2.0
//
// A whole MLP in a replayed graph. With few tokens, reading the weights is the limit; with many,
// arithmetic is.
#include "tests/bench/cuda_mlp_points.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

#include "swiglu/cuda_mlp.h"
#include "tests/bench/cuda_host.h"

namespace swiglu::bench {
namespace {

constexpr int64_t kMlpHidden = 4096;
constexpr int64_t kMostTokens = 8192;

// Device memory of 16-bit elements: numbers of BF16 of either sign, near 2^`exponent`. The tensor
// cores take less power for numbers that are alike, and are faster then.
class Numbers {
 public:
  Numbers(int64_t count, int exponent) {
    void* data = nullptr;
    Check(cudaMalloc(&data, static_cast<size_t>(count) * 2));
    data_ = static_cast<uint16_t*>(data);
    std::minstd_rand random(1);
    std::vector<uint16_t> lanes(1 << 20);
    for (uint16_t& lane : lanes) {
      const auto bits = static_cast<uint32_t>(random());
      const uint32_t exponent_bits = static_cast<uint32_t>(127 + exponent) - (bits >> 20 & 3);
      lane = static_cast<uint16_t>(exponent_bits << 7 | (bits >> 8 & 0x7f) | (bits & 0x8000));
    }
    for (int64_t at = 0; at < count; at += static_cast<int64_t>(lanes.size())) {
      const int64_t n = std::min(count - at, static_cast<int64_t>(lanes.size()));
      Check(
          cudaMemcpy(data_ + at, lanes.data(), static_cast<size_t>(n) * 2, cudaMemcpyHostToDevice));
    }
  }
  ~Numbers() { cudaFree(data_); }
  Numbers(const Numbers&) = delete;
  Numbers& operator=(const Numbers&) = delete;
  uint16_t* get() const { return data_; }

 private:
  uint16_t* data_ = nullptr;
};

// Device memory of gradients. What it holds at first does not matter.
class Gradient {
 public:
  explicit Gradient(int64_t count) {
    void* data = nullptr;
    Check(cudaMalloc(&data, static_cast<size_t>(count) * sizeof(float)));
    data_ = static_cast<float*>(data);
  }
  ~Gradient() { cudaFree(data_); }
  Gradient(const Gradient&) = delete;
  Gradient& operator=(const Gradient&) = delete;
  float* get() const { return data_; }

 private:
  float* data_ = nullptr;
};

// What is measured.
struct Pass {
  const char* name;
  Op op;
  int num_products;   // each with a matrix of weights, or of their gradients, of its own
  int num_gradients;  // of these, in FP32
};
constexpr Pass kPasses[] = {
    {"forward", Op::kForward, 3, 0},
    {"backward", Op::kBackward, 5, 0},
    {"gradients", Op::kBackward, 8, 3},
};

void MeasureSize(const Timer& timer, int64_t intermediate, double copy_gb_s, Report& report) {
  const int64_t matrix = intermediate * kMlpHidden;
  const Numbers gate_up(2 * matrix, -6), down(matrix, -6);
  const Numbers x(kMostTokens * kMlpHidden, 0), dy(kMostTokens * kMlpHidden, 0);
  const Numbers out(kMostTokens * kMlpHidden, 0);
  const Gradient d_gate(matrix), d_up(matrix), d_down(matrix);
  const CudaMlpWeights weights{Dtype::kBf16, kMlpHidden, intermediate, gate_up.get(), down.get()};
  const int64_t workspace_bytes = MlpGradientsWorkspaceBytes(weights, kMostTokens);
  const Numbers workspace(workspace_bytes / 2, 0);
  for (const Pass& pass : kPasses) {
    for (const int64_t num_tokens : {1, 8, 16, 64, 256, 512, 2048, 8192}) {
      CudaMlpBackward backward{x.get(),    dy.get(),        out.get(),
                               num_tokens, workspace.get(), workspace_bytes};
      if (pass.num_gradients > 0) {
        backward.gradients = {d_gate.get(), d_up.get(), d_down.get()};
      }
      const auto launch = [&](int) {
        Check(pass.op == Op::kForward
                  ? MlpForwardCuda(
                        weights, {x.get(), out.get(), num_tokens, workspace.get(), workspace_bytes},
                        MlpPath::kAuto, timer.stream())
                  : MlpBackwardCuda(weights, backward, MlpPath::kAuto, timer.stream()));
      };
      const Summary time = timer.Graph(num_tokens <= 512 ? 20 : 4, launch);
      const double flop = 2.0 * pass.num_products * static_cast<double>(matrix * num_tokens);
      const double bytes = (2.0 * (pass.num_products - pass.num_gradients) +
                            static_cast<double>(sizeof(float)) * pass.num_gradients) *
                           static_cast<double>(matrix);
      char note[64];
      std::snprintf(note, sizeof(note), "I = %lld, %.1f TFLOP/s",
                    static_cast<long long>(intermediate), flop / time.median / 1e6);
      Row row{.section = "mlp, GPU",
              .op = pass.name,
              .dtype = "bf16",
              .n = num_tokens,
              .note = note,
              .us = time.median,
              .spread = time.spread,
              .gb_s = bytes / time.median / 1e3,
              .baseline = "a large copy"};
      row.ratio = row.gb_s / copy_gb_s;
      report.Add(row);
    }
  }
}

}  // namespace

void MeasureCudaMlp(const Timer& timer, double copy_gb_s, Report& report) {
  for (const int64_t intermediate : {11008, 14336}) {
    MeasureSize(timer, intermediate, copy_gb_s, report);
  }
}

}  // namespace swiglu::bench
