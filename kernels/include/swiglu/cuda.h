// SPDX-License-Identifier: Apache-2.0
//
// SwiGLU on an NVIDIA GPU of compute capability 8.0 or newer: launchers that enqueue one kernel on
// a stream. "swiglu/segment.h" has the formulas, the shapes and the rules of aliasing. Where the
// library is built with CUDA, SWIGLU_CUDA is defined as 1.
//
// The float32 steps use the GPU's approximate exponential and division (ex2.approx.f32 after one
// multiplication by log2(e), and div.full.f32), as Unsloth's Triton kernel does once compiled: on
// one GPU architecture the results are the same bits.
#pragma once

#include <cuda_runtime_api.h>

#include <span>

#include "swiglu/segment.h"

namespace swiglu {

// Bounds on what a launch takes of the GPU.
struct LaunchLimits {
  // Most thread blocks in the grid; 0 means as many as the work wants, which is best for device
  // memory. Kernels that read and write pinned host memory over PCIe want few, 32, because more
  // only displace other work. Never negative.
  int max_blocks = 0;
};

// Enqueues one kernel on `stream`, a stream of the current device, that computes all of `segments`,
// up to kMaxSegments of any sizes; does not synchronize. Results and their order are those of an
// ordinary kernel of the stream, and `stream` may be capturing a graph. From Hopper on it is
// launched with programmatic stream serialization: the kernel itself waits for the earlier work in
// the stream. A kernel of your own behind it that has that attribute must do so, too
// (griddepcontrol.wait). Large work on Hopper asks for 22 to 32 KiB of shared memory a block.
//
// Pointers are readable and writable by the current device: device memory, or pinned host memory
// that is mapped. They are aligned to their elements; where all pointers of a segment have the same
// remainder modulo 16 the kernel moves 16 bytes at a time, whatever that remainder is. The memory
// must live, and inputs stay unchanged, until the work on `stream` is done. The array behind
// `segments` itself may go at return: it travels as a kernel parameter.
//
// Returns cudaSuccess once enqueued; also, without a launch, where there are no elements.
// cudaErrorInvalidValue: too many segments, a negative count, a null pointer in a segment that has
// elements, a pointer not aligned to its element, an unknown dtype, or a negative limit. Otherwise
// what the launch itself reports. On error nothing has been
// enqueued. Like any CUDA call it may report the failure of earlier work on the device; it does not
// clear an error that an earlier call has left for cudaGetLastError. Thread-safe.
cudaError_t ForwardCuda(Dtype dtype, std::span<const ForwardSegment> segments,
                        const LaunchLimits& limits, cudaStream_t stream);
cudaError_t BackwardCuda(Dtype dtype, std::span<const BackwardSegment> segments,
                         const LaunchLimits& limits, cudaStream_t stream);

}  // namespace swiglu
