// SPDX-License-Identifier: Apache-2.0
//
// SwiGLU on several cores, with the kernels of "swiglu/cpu.h". Large work is split over a fixed
// number of threads. Small work runs on the calling thread.
#pragma once

#include <memory>
#include <span>

#include "swiglu/dtype.h"
#include "swiglu/segment.h"

namespace swiglu {

class CpuPool;

// Private to the kernels: how "swiglu/cpu_mlp.h" uses the threads of a pool.
namespace internal {
class Job;
void RunOn(CpuPool& pool, Job& job);
int NumThreads(const CpuPool& pool);
}  // namespace internal

// Threads that wait for work, from construction to destruction. Thread-safe. Each calling thread
// works on its own call, so no call waits for another call before it begins. The pool's threads
// help the oldest call, while fewer than `num_threads` threads compute large work.
class CpuPool {
 public:
  // At most `num_threads` (1 or more) threads compute one call, the calling thread included. With
  // more threads than cores, they wait for each other. Starts `num_threads` - 1 threads, or fewer
  // if the system does not allow more.
  explicit CpuPool(int num_threads);

  // REQUIRES: no call is running.
  ~CpuPool();

  CpuPool(const CpuPool&) = delete;
  CpuPool& operator=(const CpuPool&) = delete;

  // Compute the same as ForwardCpu and BackwardCpu. The bits do not depend on the number of
  // threads. Work of less than a mebibyte, counted over all tensors, runs only on the calling
  // thread. REQUIRES: the thread that constructed the pool had the default floating-point
  // environment, too, because the pool's threads inherit it.
  KernelStatus Forward(Dtype dtype, std::span<const ForwardSegment> segments);
  KernelStatus Backward(Dtype dtype, std::span<const BackwardSegment> segments);

 private:
  class Impl;
  friend void internal::RunOn(CpuPool& pool, internal::Job& job);
  friend int internal::NumThreads(const CpuPool& pool);

  const std::unique_ptr<Impl> impl_;
};

}  // namespace swiglu
