// SPDX-License-Identifier: Apache-2.0
//
// How the kernels of an MLP are launched. Private to the kernels.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <cstdint>

#include "kernels/cuda/mlp_plan.h"
#include "swiglu/dtype.h"

namespace swiglu::internal {

// Enqueue one kernel that computes `product` in tiles of `tile`. REQUIRES: the product has tokens,
// and mlp_plan.h chooses that tile on that path. Return what the launch reports.
cudaError_t LaunchMma(Dtype dtype, const Product& product, const TileSize& tile,
                      const MlpDevice& device, cudaStream_t stream);
template <Dtype kDtype>
cudaError_t LaunchWgmma(const Product& product, const TileSize& tile, const MlpDevice& device,
                        cudaStream_t stream);

// The same for the gradient of a matrix of weights.
cudaError_t LaunchGradientMma(Dtype dtype, const GradientProduct& product, const MlpDevice& device,
                              cudaStream_t stream);
cudaError_t LaunchGradientWgmma(Dtype dtype, const GradientProduct& product, cudaStream_t stream);

// A kernel and its grid.
struct KernelLaunch {
  const void* kernel;
  int64_t num_blocks;
  int threads;
  int shared_bytes;
  bool starts_early;  // while the kernel before it is finishing (early_start.cuh)
};

// Enqueues a kernel that takes one argument. A kernel gets more than 48 KiB of shared memory only
// after it has said so, once for each device; `prepared` has a bit for each device where it has.
inline cudaError_t LaunchKernel(const KernelLaunch& launch, void* argument,
                                std::atomic<uint64_t>& prepared, cudaStream_t stream) {
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return error;
  const uint64_t bit = device < 64 ? uint64_t{1} << device : 0;
  if ((prepared.load(std::memory_order_relaxed) & bit) == 0) {
    const cudaError_t error = cudaFuncSetAttribute(
        launch.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, launch.shared_bytes);
    if (error != cudaSuccess) return error;
    prepared.fetch_or(bit, std::memory_order_relaxed);
  }

  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(launch.num_blocks));
  config.blockDim = dim3(static_cast<unsigned>(launch.threads));
  config.dynamicSmemBytes = static_cast<size_t>(launch.shared_bytes);
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = launch.starts_early ? 1 : 0;
  void* arguments[] = {argument};
  return cudaLaunchKernelExC(&config, launch.kernel, arguments);
}

}  // namespace swiglu::internal
