// SPDX-License-Identifier: Apache-2.0
//
// A whole SwiGLU MLP on the CPU, forward, and backward to its input and to its weights, on the
// threads of a CpuPool.
//
// H is the hidden size, I the intermediate size, M the number of tokens, and T the dtype of all
// tensors: FP16 or BF16. All are row-major: Wg (gate) and Wu (up) are [I][H], Wd (down) is [H][I],
// and x, y, dy and dx are [M][H].
//
//   forward    e = T(x Wg^T)    g = T(x Wu^T)    h as "swiglu/segment.h" has it
//              y = T(h Wd^T)
//   backward   e and g as above, dw = T(dy Wd); df and de as "swiglu/segment.h" has them
//              dx = T(T(df Wu) + T(de Wg))
//              dWg = de^T x    dWu = df^T x    dWd = dy^T h, in float32, shaped as Wg, Wu and Wd
//
// T(x) rounds to nearest, ties to even. Each element of a product has one float32 accumulator that
// begins at 0. A fused multiply-add adds one term after the other, in the order of their index.
// So the bits of a token depend neither on M, nor on the other tokens, nor on the number of
// threads. Those of a product do not depend on the instruction set; h, df and de are those of
// ForwardCpu and BackwardCpu (see "swiglu/cpu.h"). The payload of a NaN is unspecified.
//
// The terms of dWg, dWu and dWd are those of the tokens, in their order. If a call continues the
// sums of the call before, the bits are those of one call with all tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "swiglu/cpu_pool.h"
#include "swiglu/dtype.h"
#include "swiglu/mlp.h"

namespace swiglu {

// The alignment of a workspace in bytes.
inline constexpr size_t kMlpAlignment = 64;

// What a call found wrong. On any status but kOk, nothing has been written.
enum class MlpStatus {
  kOk,
  kBadDtype,           // neither FP16 nor BF16
  kBadSize,            // H or I is not a multiple of kMlpSizeStep from that to kMaxMlpSize
  kBadCount,           // M is negative or above kMaxMlpTokens
  kNullPointer,        // a null pointer to a tensor that has elements
  kMisaligned,         // a tensor not aligned to its element, or a workspace not to kMlpAlignment
  kWorkspaceTooSmall,  // fewer bytes than the call needs
  kNotPacked,          // backward with weights that are packed for forward only
  kOutOfMemory,        // the system has no memory for the packed weights
};

// Returns a short phrase for a message, never null.
const char* ToString(MlpStatus status);

// The weights of an MLP as they lie in the caller's memory. Each pointer needs only the alignment
// of its element.
struct MlpMatrices {
  Dtype dtype;
  int64_t hidden;        // H
  int64_t intermediate;  // I
  const void* gate;      // Wg, [I][H]
  const void* up;        // Wu, [I][H]
  const void* down;      // Wd, [H][I]
};

// What weights are packed for. Backward takes the same memory again.
enum class MlpPacking { kForward, kForwardAndBackward };

// y from x.
struct MlpForward {
  const void* x;
  void* y;
  int64_t num_tokens;              // M. If it is 0, nothing else is used.
  std::span<std::byte> workspace;  // at least ForwardWorkspaceBytes(M)
};

// dx from x and dy, and the gradients of the weights. e and g are computed again.
struct MlpBackward {
  const void* x;
  const void* dy;
  void* dx;            // may be null if `gradients` has any; then dx is not computed
  int64_t num_tokens;  // M. If it is 0, only `gradients` is used: sums that begin are 0.
  std::span<std::byte> workspace;  // at least BackwardWorkspaceBytes(M)
  MlpWeightGradients gradients = {};
};

// Weights, packed once for the products. Immutable, so any number of threads may use them at the
// same time, each with a workspace of its own.
//
// x, y, dy, dx and the gradients need only the alignment of their element. An output overlaps
// neither an input, nor another output, nor a workspace, and a workspace overlaps nothing else.
// What a workspace holds before and after a call is unspecified.
class CpuMlpWeights {
 public:
  // Copies and packs the matrices into memory of its own, 64-byte aligned, and puts the result into
  // `weights`. On any status but kOk, `weights` is as before.
  static MlpStatus Create(const MlpMatrices& matrices, MlpPacking packing,
                          std::unique_ptr<const CpuMlpWeights>& weights);

  ~CpuMlpWeights();
  CpuMlpWeights(const CpuMlpWeights&) = delete;
  CpuMlpWeights& operator=(const CpuMlpWeights&) = delete;

  // Compute on the calling thread and the free threads of `pool`, and return when all is written.
  // Small work runs only on the calling thread. Allocate nothing for the tensors. REQUIRES: the
  // floating-point environment that ForwardCpu and CpuPool require.
  MlpStatus Forward(const MlpForward& call, CpuPool& pool) const;
  MlpStatus Backward(const MlpBackward& call, CpuPool& pool) const;

  // The bytes of workspace for `num_tokens` tokens; more tokens never need fewer. REQUIRES: from 0
  // to kMaxMlpTokens tokens.
  int64_t ForwardWorkspaceBytes(int64_t num_tokens) const;
  int64_t BackwardWorkspaceBytes(int64_t num_tokens) const;

  // The bytes of the packed weights.
  int64_t size_bytes() const;

 private:
  struct Packed;

  explicit CpuMlpWeights(std::unique_ptr<Packed> packed);

  const std::unique_ptr<const Packed> packed_;
};

}  // namespace swiglu
