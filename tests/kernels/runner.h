// SPDX-License-Identifier: Apache-2.0
//
// What the tests of all kernels run on: an instruction set of the CPU, or a CUDA device with one
// kind of memory. Tests that hold everywhere are written against it, see kernel_test.h.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "swiglu/dtype.h"
#include "swiglu/segment.h"

namespace swiglu::kernels {

// Runs kernels and owns nothing of their memory. Not thread-safe.
class Runner {
 public:
  virtual ~Runner() = default;

  // Computes `segments` in one call and waits for it; an error fails the running test.
  virtual void Run(Dtype dtype, std::span<const ForwardSegment> segments) = 0;
  virtual void Run(Dtype dtype, std::span<const BackwardSegment> segments) = 0;

  // Memory that the kernel reads and writes, aligned to 64 bytes or more.
  virtual std::shared_ptr<std::byte> Allocate(size_t num_bytes) = 0;
  virtual void CopyIn(std::byte* to, std::span<const std::byte> from) = 0;
  virtual void CopyOut(std::span<std::byte> to, const std::byte* from) = 0;
};

}  // namespace swiglu::kernels
