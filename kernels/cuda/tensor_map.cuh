// SPDX-License-Identifier: Apache-2.0
//
// Describes tensors of 16-bit elements to Hopper's tensor copies (TMA). The driver's encoder is
// found at run time, so that a program need not be linked with the driver. Private to the kernels.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

namespace swiglu::internal {

// Fills `map` for a tensor of kRank dimensions, innermost first. `strides` are in bytes, those of
// the innermost dimension left out. Rows of a box have 128 bytes, and lie swizzled in shared
// memory. REQUIRES: data is 16-byte aligned, and strides are multiples of 16.
template <int kRank>
cudaError_t EncodeMap(const void* data, const cuuint64_t (&sizes)[kRank],
                      const cuuint64_t (&strides)[kRank - 1], const cuuint32_t (&box)[kRank],
                      CUtensorMap& map) {
  using Encoder = decltype(&cuTensorMapEncodeTiled);
  static const Encoder encoder = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result{};
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                               12000, cudaEnableDefault, &result);
    const bool found = error == cudaSuccess && result == cudaDriverEntryPointSuccess;
    return found ? reinterpret_cast<Encoder>(function) : nullptr;
  }();
  if (encoder == nullptr) return cudaErrorNotSupported;
  cuuint32_t element_strides[kRank];
  for (cuuint32_t& stride : element_strides) stride = 1;
  const CUresult result =
      encoder(&map, CU_TENSOR_MAP_DATA_TYPE_UINT16, kRank, const_cast<void*>(data), sizes, strides,
              box, element_strides, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
              CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace swiglu::internal
