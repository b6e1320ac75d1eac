// SPDX-License-Identifier: Apache-2.0
//
// The input of the SwiGLU kernels: segments, and the errors for which a launcher refuses them. The
// launchers are in "swiglu/cpu.h" and "swiglu/cuda.h".
//
// The arithmetic is that of Unsloth's SwiGLU kernel (unsloth/kernels/swiglu.py, Apache-2.0). With
// all tensors of one dtype T, element by element:
//
//   forward    se = 1 / (1 + exp(-e))           sigmoid, in float32
//              f  = T(se * e)                   SiLU(e)
//              h  = T(f * g)
//   backward   f and h as above, and
//              df = T(dw * f)                   the gradient of g (up):   d_up
//              dg = T(dw * g)                   an intermediate, not an output
//              de = T((dg * se) * (1 + e * (1 - se)))   the gradient of e (gate): d_gate
//
// T(x) rounds to nearest, ties to even. Sums and products without a T are float32.
//
// Special values. A NaN stays in its own element. For e = -inf, f is NaN, because 0 * inf is NaN.
// For e = +inf, f = +inf. Where 1 + exp(-e) overflows float32 (finite e below about -88.7) the
// sigmoid is 0 and f is -0. Signed zeros are kept and nothing is flushed to zero.
#pragma once

#include <cstdint>

namespace swiglu {

// One forward problem: `num_elements` contiguous elements of e (gate) and of g (up) give the same
// number of elements of h. A row-major contiguous tensor of any shape is a segment.
//
// Every pointer needs only the alignment of its element. `h` may be `e` or `g` (in place);
// otherwise it overlaps neither. Inputs may overlap each other. No two segments of one call write
// to the same memory. `num_elements` is not negative; if it is 0, the pointers are not used.
struct ForwardSegment {
  const void* e;         // gate
  const void* g;         // up
  void* h;               // f(e) * g
  int64_t num_elements;  // of each tensor
};

// One backward problem: dw is the gradient of h. The rules of ForwardSegment hold, but there are
// three inputs and three outputs.
//
// In place, the outputs replace the inputs in this order. It looks like a bug, but the reference
// kernel uses the same order:
//
//   h = dw   the buffer of dw receives h
//   df = e   the buffer of e (gate) receives df, the gradient of g (up)
//   de = g   the buffer of g (up) receives de, the gradient of e (gate)
//
// In each of these three pairs, output and input may share a buffer or not. All three inputs of an
// element are read before any output is written.
struct BackwardSegment {
  const void* dw;        // gradient of h
  const void* e;         // gate
  const void* g;         // up
  void* h;               // f(e) * g, as forward gives it
  void* df;              // gradient of g: d_up
  void* de;              // gradient of e: d_gate
  int64_t num_elements;  // of each tensor
};

// The most segments that one CUDA launch takes. The CPU takes any number.
inline constexpr int kMaxSegments = 256;

// What a launcher found wrong with its arguments. The whole call is checked before anything is
// written.
enum class KernelStatus {
  kOk,
  kNullPointer,    // a null pointer in a segment that has elements
  kNegativeCount,  // num_elements < 0
  kMisaligned,     // a pointer that is not a multiple of the element's size
  kBadDtype,       // not an enumerator of Dtype
};

// Returns a short phrase for a message, never null.
constexpr const char* ToString(KernelStatus status) {
  switch (status) {
    case KernelStatus::kOk:
      return "ok";
    case KernelStatus::kNullPointer:
      return "null pointer in a segment that has elements";
    case KernelStatus::kNegativeCount:
      return "negative number of elements";
    case KernelStatus::kMisaligned:
      return "pointer not aligned to its element";
    case KernelStatus::kBadDtype:
      return "unknown dtype";
  }
  return "unknown status";
}

}  // namespace swiglu
