// SPDX-License-Identifier: Apache-2.0
//
// SwiGLU on several cores: the kernels of "swiglu/cpu.h", with large work split over a fixed number
// of threads and small work left to the caller.
#pragma once

#include <memory>
#include <span>

#include "swiglu/segment.h"

namespace swiglu {

// Threads that wait for work, from construction to destruction. Thread-safe: each caller works on
// its own call, so none waits for another's work to begin, and the pool's threads help the oldest
// call as long as fewer threads compute large work than the pool was given.
class CpuPool {
 public:
  // `num_threads` is how many compute at once, callers included: 1 or more; more than there are
  // cores only makes them wait for each other. Starts one thread fewer, or as many as the system
  // allows.
  explicit CpuPool(int num_threads);

  // REQUIRES: no call is running.
  ~CpuPool();

  CpuPool(const CpuPool&) = delete;
  CpuPool& operator=(const CpuPool&) = delete;

  // As ForwardCpu and BackwardCpu say, with the same bits whatever the number of threads. Work of
  // less than a mebibyte, of all tensors together, runs on the caller alone. REQUIRES: the
  // constructing thread had the default floating-point environment too, which the pool's inherit.
  KernelStatus Forward(Dtype dtype, std::span<const ForwardSegment> segments);
  KernelStatus Backward(Dtype dtype, std::span<const BackwardSegment> segments);

 private:
  class Impl;

  const std::unique_ptr<Impl> impl_;
};

}  // namespace swiglu
