// SPDX-License-Identifier: Apache-2.0
//
// A whole MLP on CUDA, computed in the plainest way: one warp for each 16 outputs and 8 tokens, and
// each intermediate result in memory. Shares no code with the kernels of an MLP.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "swiglu/dtype.h"

namespace swiglu::kernels {

// An MLP in device memory. Wg and Wu are [I][H], Wd is [H][I]; x, dy, y and dx are [M][H].
struct CudaMlpProblem {
  Dtype dtype;
  int hidden;        // H
  int intermediate;  // I
  int num_tokens;    // M
  const uint16_t *gate, *up, *down;
  const uint16_t *x, *dy;
};

// Device memory that a reference needs for what is between the products.
int64_t ReferenceScratchElements(const CudaMlpProblem& problem);

// Enqueue kernels on the default stream that write y, or dx.
cudaError_t ReferenceForward(const CudaMlpProblem& problem, uint16_t* scratch, uint16_t* y);
cudaError_t ReferenceBackward(const CudaMlpProblem& problem, uint16_t* scratch, uint16_t* dx);

// What ReferenceBackward leaves in `scratch`, [M][I] each.
struct ReferenceHidden {
  const uint16_t *h, *df, *de;
};
ReferenceHidden HiddenIn(const CudaMlpProblem& problem, uint16_t* scratch);

// Enqueues kernels on the default stream that write the gradients of the weights, [I][H], [I][H]
// and [H][I].
cudaError_t ReferenceGradients(const CudaMlpProblem& problem, const ReferenceHidden& hidden,
                               float* d_gate, float* d_up, float* d_down);

// What a comparison on the device finds.
struct MlpDifferences {
  unsigned long long num_wrong = 0;  // elements that differ; NaNs are alike
  long long first = -1;              // the index of one of them
  unsigned long long num_nans = 0;   // among the expected
};

// Compare bits and wait. `actual` and `expected` have `num_elements` elements.
cudaError_t CompareMlp(Dtype dtype, const uint16_t* actual, const uint16_t* expected,
                       int64_t num_elements, MlpDifferences& differences);
cudaError_t CompareMlp(const float* actual, const float* expected, int64_t num_elements,
                       MlpDifferences& differences);

// How numbers are made up.
struct MlpNumbers {
  uint64_t seed;
  float scale;              // most numbers lie between -2 scale and 2 scale
  uint32_t special_in = 0;  // one of so many has any pattern, often an infinity or a NaN; 0: none
};

// Enqueues a kernel that fills `data` on the default stream.
cudaError_t FillMlp(Dtype dtype, const MlpNumbers& numbers, uint16_t* data, int64_t num_elements);

}  // namespace swiglu::kernels
