// SPDX-License-Identifier: Apache-2.0
//
// Programmatic dependent launch, from the side of a kernel: it may start while the kernel before it
// in the stream is still finishing, and it waits for that kernel itself. Private to the kernels.
#pragma once

namespace swiglu::internal {

// Waits until all earlier work of the stream is done and its results are visible. The kernel may
// have started earlier. Every kernel calls this before it reads or writes what the stream orders.
__device__ inline void AwaitEarlierWork() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the next kernel of the stream start, once every block has called this or ended. The next
// kernel waits for the results of this one (AwaitEarlierWork), so the call may be early. If it is,
// the start of the next kernel overlaps this kernel.
__device__ inline void LetNextKernelStart() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

}  // namespace swiglu::internal
