// SPDX-License-Identifier: Apache-2.0
//
// The limits of a SwiGLU MLP, which the CPU ("swiglu/cpu_mlp.h") and CUDA ("swiglu/cuda_mlp.h")
// share. H is the hidden size, I the intermediate size, and M the number of tokens.
#pragma once

#include <cstdint>

namespace swiglu {

// H and I are multiples of kMlpSizeStep.
inline constexpr int64_t kMlpSizeStep = 8;
inline constexpr int64_t kMaxMlpSize = int64_t{1} << 20;    // the greatest H and I
inline constexpr int64_t kMaxMlpTokens = int64_t{1} << 24;  // the greatest M

}  // namespace swiglu
