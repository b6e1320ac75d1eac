// SPDX-License-Identifier: Apache-2.0
//
// SwiGLU on an NVIDIA GPU of compute capability 8.0 or newer: launchers that enqueue one kernel on
// a stream. "swiglu/segment.h" has the formulas, the shapes and the rules of aliasing. Where the
// library is built with CUDA, SWIGLU_CUDA is defined as 1.
//
// The float32 steps use the GPU's approximate exponential and division (ex2.approx.f32 after one
// multiplication by log2(e), and div.full.f32), as Unsloth's compiled Triton kernel does. So on one
// GPU architecture both give the same bits.
#pragma once

#include <cuda_runtime_api.h>

#include <span>

#include "swiglu/dtype.h"
#include "swiglu/segment.h"

namespace swiglu {

// Limits on the GPU resources that a launch may use.
struct LaunchLimits {
  // The most thread blocks in the grid. 0 means as many as the work needs, which is best for device
  // memory. For kernels that use pinned host memory over PCIe, 32 are enough; more blocks only take
  // resources from other work. Never negative.
  int max_blocks = 0;
};

// Enqueues one kernel that computes all of `segments`, at most kMaxSegments of any sizes. `stream`
// belongs to the current device, and may be capturing a graph. Does not synchronize. The kernel
// keeps the order of the stream, like an ordinary kernel.
//
// From Hopper on, the kernel is launched with programmatic stream serialization: the kernel itself
// waits for the earlier work in the stream. If you launch a kernel of your own after it with the
// same attribute, your kernel must wait, too (griddepcontrol.wait). Large work on Hopper takes 22
// to 32 KiB of shared memory per block.
//
// REQUIRES: the current device can read and write the memory of all pointers: device memory, or
// pinned host memory that is mapped. Each pointer is aligned to its element. If all pointers of a
// segment have the same remainder modulo 16, whatever it is, the kernel need not shift the bytes
// that it moves. The memory must live, and inputs must stay unchanged, until the kernel is done.
// The array of `segments` itself may be freed when the call returns, because its content is passed
// as a kernel parameter.
//
// Returns cudaSuccess once the kernel is enqueued. If there are no elements, it returns cudaSuccess
// without a launch. cudaErrorInvalidValue: too many segments, a negative count, a null pointer in a
// segment that has elements, a pointer not aligned to its element, an unknown dtype, or a negative
// limit. Any other error is the one that the launch reports. On error nothing has been enqueued.
// Like any CUDA call, a launcher may report the failure of earlier work on the device. It does not
// clear an error that an earlier call has left for cudaGetLastError. Thread-safe.
cudaError_t ForwardCuda(Dtype dtype, std::span<const ForwardSegment> segments,
                        const LaunchLimits& limits, cudaStream_t stream);
cudaError_t BackwardCuda(Dtype dtype, std::span<const BackwardSegment> segments,
                         const LaunchLimits& limits, cudaStream_t stream);

}  // namespace swiglu
