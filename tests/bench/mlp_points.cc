// SPDX-License-Identifier: Apache-2.0
//
// A whole MLP on the CPU, beside threads that only read as many bytes of weights. Both alternate,
// round by round. With one token, reading the weights is the limit; with many, arithmetic is.
#include "tests/bench/mlp_points.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <thread>
#include <vector>

#include "swiglu/cpu_mlp.h"
#include "swiglu/cpu_pool.h"

namespace swiglu::bench {
namespace {

constexpr int64_t kHidden = 4096;
constexpr int64_t kIntermediate = 11008;
constexpr int64_t kMatrix = kHidden * kIntermediate;
constexpr int kMlpRounds = 5;

// Numbers below 2^-6, in FP16 and in BF16.
std::vector<uint16_t> RandomWeights(Dtype dtype) {
  std::minstd_rand random(1);
  std::vector<uint16_t> lanes(3 * kMatrix);
  const uint32_t first = dtype == Dtype::kFp16 ? 0x2000 : 0x3c00;
  for (uint16_t& lane : lanes) {
    const auto bits = static_cast<uint32_t>(random());
    lane = static_cast<uint16_t>(first + (bits >> 8 & 0x7f) + (bits & 0x8000));
  }
  return lanes;
}

// Reads `words`, an equal share on each thread.
void Read(std::span<const uint64_t> words, int num_threads) {
  std::vector<std::thread> threads;
  std::vector<uint64_t> sums(static_cast<size_t>(num_threads));
  for (size_t i = 0; i < sums.size(); ++i) {
    threads.emplace_back([&, i] {
      const size_t begin = words.size() * i / sums.size(),
                   end = words.size() * (i + 1) / sums.size();
      uint64_t sum = 0;
      for (const uint64_t word : words.subspan(begin, end - begin)) sum += word;
      sums[i] = sum;
    });
  }
  for (std::thread& thread : threads) thread.join();
}

double MicrosecondsOf(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin)
      .count();
}

struct Free {
  void operator()(std::byte* memory) const { std::free(memory); }
};

// What a call computes; the last one is backward with the gradients of the weights.
enum class MlpCall { kForward, kBackward, kGradients };
constexpr MlpCall kMlpCalls[] = {MlpCall::kForward, MlpCall::kBackward, MlpCall::kGradients};

const char* NameOf(MlpCall call) {
  if (call == MlpCall::kForward) return "forward";
  return call == MlpCall::kBackward ? "backward" : "gradients";
}

// One call on `num_tokens` tokens. `sums` has room for three matrices.
void MeasureMlpPoint(MlpCall kind, Dtype dtype, int64_t num_tokens, const CpuMlpWeights& weights,
                     std::span<float> sums, std::span<const uint64_t> plain, int num_threads,
                     Report& report) {
  CpuPool pool(num_threads);
  const bool is_forward = kind == MlpCall::kForward;
  MlpWeightGradients gradients;
  if (kind == MlpCall::kGradients) {
    gradients = {sums.data(), sums.data() + kMatrix, sums.data() + 2 * kMatrix};
  }
  const auto workspace_bytes =
      static_cast<size_t>(is_forward ? weights.ForwardWorkspaceBytes(num_tokens)
                                     : weights.BackwardWorkspaceBytes(num_tokens));
  const std::unique_ptr<std::byte, Free> workspace(
      static_cast<std::byte*>(std::aligned_alloc(kMlpAlignment, workspace_bytes)));
  const std::span<std::byte> scratch(workspace.get(), workspace_bytes);
  std::vector<uint16_t> x(static_cast<size_t>(num_tokens * kHidden), 0x3c00), y(x.size());
  const auto call = [&] {
    is_forward
        ? weights.Forward({x.data(), y.data(), num_tokens, scratch}, pool)
        : weights.Backward({x.data(), x.data(), y.data(), num_tokens, scratch, gradients}, pool);
  };

  std::vector<double> times, read_times;
  for (int round = 0; round <= kMlpRounds; ++round) {
    const double us = MicrosecondsOf(call);
    const double read_us = MicrosecondsOf([&] { Read(plain, num_threads); });
    if (round == 0) continue;
    times.push_back(us);
    read_times.push_back(read_us);
  }
  const Summary time = Summarize(times);
  // Products of this call, each with a matrix of its own. A gradient of FP32 has twice the bytes of
  // the weights.
  const double num_products = is_forward ? 3 : kind == MlpCall::kBackward ? 5 : 8;
  const double num_matrices = kind == MlpCall::kGradients ? 11 : num_products;
  const double bytes = num_matrices * kMatrix * 2;
  char note[64];
  std::snprintf(note, sizeof(note), "%.0f GFLOP/s",
                num_products * kMatrix * 2 * static_cast<double>(num_tokens) / time.median / 1e3);
  report.Add({.section = "mlp",
              .op = NameOf(kind),
              .dtype = Name(dtype),
              .n = num_tokens,
              .note = note,
              .us = time.median,
              .spread = time.spread,
              .gb_s = bytes / time.median / 1e3,
              .baseline = "reading the weights",
              .ratio = Summarize(read_times).median * num_matrices / 3 / time.median});
}

}  // namespace

void MeasureMlp(int num_threads, Report& report) {
  for (const Dtype dtype : {Dtype::kFp16, Dtype::kBf16}) {
    const std::vector<uint16_t> lanes = RandomWeights(dtype);
    std::unique_ptr<const CpuMlpWeights> weights;
    const MlpStatus status =
        CpuMlpWeights::Create({dtype, kHidden, kIntermediate, lanes.data(), lanes.data() + kMatrix,
                               lanes.data() + 2 * kMatrix},
                              MlpPacking::kForwardAndBackward, weights);
    if (status != MlpStatus::kOk) {
      std::fprintf(stderr, "kernel_bench: mlp: %s\n", ToString(status));
      return;
    }
    const std::span<const uint64_t> plain(reinterpret_cast<const uint64_t*>(lanes.data()),
                                          lanes.size() / 4);
    std::vector<float> sums(3 * kMatrix);
    for (const MlpCall kind : kMlpCalls) {
      for (const int64_t num_tokens : {1, 64, 512}) {
        MeasureMlpPoint(kind, dtype, num_tokens, *weights, sums, plain, num_threads, report);
      }
    }
  }
}

}  // namespace swiglu::bench
