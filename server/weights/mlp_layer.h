// SPDX-License-Identifier: Apache-2.0
//
// The MLP of one layer as its files describe it, and where its weights lie in the files.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "server/weights/weights_file.h"
#include "swiglu/dtype.h"

namespace swiglu::server {

// H and I are multiples of kMlpSizeStep, and at most kMaxMlpSize ("swiglu/cpu_mlp.h").
struct MlpLayer {
  int number = 0;
  Dtype dtype = Dtype::kFp16;  // FP16 or BF16, of all three matrices
  int64_t hidden = 0;          // H
  int64_t intermediate = 0;    // I

  // The bytes of each of the three matrices: gate and up, [I][H], and down, [H][I].
  int64_t matrix_bytes() const { return hidden * intermediate * ElementBytes(dtype); }
  int64_t size_bytes() const { return 3 * matrix_bytes(); }
};

// Where a matrix begins. Its bytes are row-major and without gaps.
struct MatrixPlace {
  const WeightsFile* file = nullptr;
  uint64_t offset = 0;  // from the beginning of the file
};

// Gate, up and down, in this order.
inline constexpr size_t kNumMlpMatrices = 3;
using LayerPlaces = std::array<MatrixPlace, kNumMlpMatrices>;

}  // namespace swiglu::server
