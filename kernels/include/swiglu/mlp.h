// SPDX-License-Identifier: Apache-2.0
//
// What the CPU ("swiglu/cpu_mlp.h") and CUDA ("swiglu/cuda_mlp.h") share of a SwiGLU MLP: limits,
// and the gradients of the weights. H is the hidden size, I the intermediate size, and M the number
// of tokens.
#pragma once

#include <cstdint>

namespace swiglu {

// H and I are multiples of kMlpSizeStep.
inline constexpr int64_t kMlpSizeStep = 8;
inline constexpr int64_t kMaxMlpSize = int64_t{1} << 20;    // the greatest H and I
inline constexpr int64_t kMaxMlpTokens = int64_t{1} << 24;  // the greatest M

// What the sums over tokens begin with: 0, or what the memory has, which is where the call for the
// tokens before has left off.
enum class MlpSums { kBegin, kContinue };

// The gradients of the weights. Of those that are null, none is computed.
struct MlpWeightGradients {
  float* gate = nullptr;  // dWg, [I][H]
  float* up = nullptr;    // dWu, [I][H]
  float* down = nullptr;  // dWd, [H][I]
  MlpSums sums = MlpSums::kBegin;

  // Whether any gradient is computed.
  bool has_any() const { return gate != nullptr || up != nullptr || down != nullptr; }
};

}  // namespace swiglu
