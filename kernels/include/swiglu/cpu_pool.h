// SPDX-License-Identifier: Apache-2.0
//
// SwiGLU on several cores: the kernels of "swiglu/cpu.h", with large work split over a fixed number
// of threads and small work left to the caller.
#pragma once

#include <memory>
#include <span>

#include "swiglu/dtype.h"
#include "swiglu/segment.h"

namespace swiglu {

// Threads that wait for work, from construction to destruction. Thread-safe. Each calling thread
// works on its own call, so no call has to wait for another one before its work begins. The pool's
// threads help the oldest call, as long as the threads that compute large work are fewer than
// `num_threads`.
class CpuPool {
 public:
  // `num_threads` is how many threads compute at once, calling threads included. 1 or more. More
  // threads than cores only wait for each other. Starts one thread fewer, or as many as the system
  // allows.
  explicit CpuPool(int num_threads);

  // REQUIRES: no call is running.
  ~CpuPool();

  CpuPool(const CpuPool&) = delete;
  CpuPool& operator=(const CpuPool&) = delete;

  // The same as ForwardCpu and BackwardCpu, with the same bits whatever the number of threads. Work
  // of less than a mebibyte, counted over all tensors, runs only on the calling thread. REQUIRES:
  // the thread that constructed the pool had the default floating-point environment, too. The
  // pool's threads inherit it.
  KernelStatus Forward(Dtype dtype, std::span<const ForwardSegment> segments);
  KernelStatus Backward(Dtype dtype, std::span<const BackwardSegment> segments);

 private:
  class Impl;

  const std::unique_ptr<Impl> impl_;
};

}  // namespace swiglu
