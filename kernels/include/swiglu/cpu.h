// SPDX-License-Identifier: Apache-2.0
//
// SwiGLU on the CPU: vectorised, with the instruction set chosen at run time. "swiglu/segment.h"
// has the formulas, the shapes and the rules of aliasing.
//
// Accuracy, against the formulas in float64 with the same roundings to T:
// - FP16 and BF16: f and de are within 1 unit in the last place.
// - FP32: f is within 4 units in the last place. de is within 8 units in the last place of |dg *
//   se| * max(1, |e|).
// - h and df are exactly the rounded products.
//
// Within these bounds, results may differ from one instruction set to another, and from CUDA.
#pragma once

#include <span>

#include "swiglu/dtype.h"
#include "swiglu/segment.h"

namespace swiglu {

// Computes `segments` one after the other on the calling thread and returns when all are written.
// `segments` may be empty. On any status but kOk, nothing has been written. Pointers need only the
// alignment of their element; a larger alignment saves no time. Thread-safe. Allocates nothing.
// REQUIRES: the thread's floating-point environment is the default one: round to nearest,
// subnormals neither flushed nor read as zero.
KernelStatus ForwardCpu(Dtype dtype, std::span<const ForwardSegment> segments);
KernelStatus BackwardCpu(Dtype dtype, std::span<const BackwardSegment> segments);

// Returns the name of the instruction set in use, in Highway's words: "AVX3" (AVX-512), "AVX2",
// "SSE4", "EMU128" and so on.
const char* CpuTarget();

}  // namespace swiglu
