// SPDX-License-Identifier: Apache-2.0
//
// A whole SwiGLU MLP on an NVIDIA GPU of compute capability 8.0 or newer, forward and backward to
// its input and its weights: launchers that enqueue a few kernels on a stream. Where the library is
// built with CUDA, SWIGLU_CUDA is defined as 1.
//
// H is the hidden size, I the intermediate size, M the number of tokens, and T the dtype of all
// tensors but the gradients of the weights: FP16 or BF16. All are row-major: Wg (gate) and Wu (up)
// are [I][H], Wd (down) is [H][I], and x, y, dy and dx are [M][H]. The gradients of the weights are
// FP32, and each has the shape of its matrix.
//
//   forward    e = T(x Wg^T)    g = T(x Wu^T)    h as ForwardCuda has it ("swiglu/cuda.h")
//              y = T(h Wd^T)
//   backward   e and g as above, dw = T(dy Wd); df and de as BackwardCuda has them
//              dx = T(T(df Wu) + T(de Wg))
//   of weights dWg = de^T x          dWu = df^T x          dWd = dy^T h
//
// T(x) rounds to nearest, ties to even. Each element of a product has one float32 accumulator that
// begins at 0. The tensor cores add terms to it in the order of their index, 16 at a time. No
// product is split. So the bits of a token depend neither on M, nor on the other tokens, nor on the
// path below. The payload of a NaN is unspecified.
//
// A gradient of the weights is a sum over tokens, 16 at a time as well. A call may continue the
// sums of the call before (MlpSums). So the bits do not depend on how the tokens are cut into
// calls, if all cuts are at multiples of 16.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "swiglu/dtype.h"
#include "swiglu/mlp.h"

namespace swiglu {

// The alignment of every tensor and workspace in bytes.
inline constexpr int64_t kCudaMlpAlignment = 16;

// The weights of an MLP in device memory.
struct CudaMlpWeights {
  Dtype dtype;           // FP16 or BF16
  int64_t hidden;        // H
  int64_t intermediate;  // I
  // Wg and Wu interleaved, [2 I][H]: rows 0 to 7 of Wg, rows 0 to 7 of Wu, rows 8 to 15 of Wg, and
  // so on. CopyGateUpCuda writes them so.
  const void* gate_up;
  const void* down;  // Wd, [H][I]
};

// Which of the two matrices in `gate_up`: Wg or Wu.
enum class MlpMatrix { kGate, kUp };

// Consecutive rows of Wg or Wu, of either 16-bit dtype.
struct MlpRows {
  MlpMatrix matrix;
  int64_t hidden;     // H
  int64_t first_row;  // a multiple of 8
  int64_t num_rows;   // a multiple of 8; may be 0
  const void* data;   // [num_rows][H], in host or device memory
};

// Enqueues a copy of `rows` to their places in `gate_up`, the [2 I][H] of CudaMlpWeights. From
// pageable host memory it is not asynchronous, as cudaMemcpyAsync. The rows must live until the
// copy is done. Returns cudaErrorInvalidValue for a number of rows or an H that is no multiple of
// 8, or negative, or a null pointer, or the error that the copy reports.
cudaError_t CopyGateUpCuda(const MlpRows& rows, void* gate_up, cudaStream_t stream);

// y from x.
struct CudaMlpForward {
  const void* x;
  void* y;
  int64_t num_tokens;  // M. If it is 0, nothing else is used.
  void* workspace;     // device memory; its content before and after is unspecified
  int64_t workspace_bytes;
};

// dx from x and dy, and the gradients of the weights. e and g are computed again.
struct CudaMlpBackward {
  const void* x;
  const void* dy;
  void* dx;            // may be null if `gradients` has any; then dx is not computed
  int64_t num_tokens;  // M. If it is 0, only `gradients` is used: sums that begin are 0.
  void* workspace;
  int64_t workspace_bytes;
  MlpWeightGradients gradients = {};
};

// The bytes of workspace for `num_tokens` tokens. More tokens never need fewer, and from 8192
// tokens on the bytes stay the same, because more tokens are computed in parts. The pointers in
// `weights` are not used. REQUIRES: H, I and `num_tokens` in their ranges.
int64_t MlpForwardWorkspaceBytes(const CudaMlpWeights& weights, int64_t num_tokens);
// For a call without gradients.down.
int64_t MlpBackwardWorkspaceBytes(const CudaMlpWeights& weights, int64_t num_tokens);
// For a call with gradients.down, and so for every call of backward.
int64_t MlpGradientsWorkspaceBytes(const CudaMlpWeights& weights, int64_t num_tokens);

// Which instructions compute the products. The bits are the same. For tests and measurements.
enum class MlpPath {
  kAuto,   // the fastest of those below
  kMma,    // mma.sync: on every device
  kWgmma,  // wgmma: on Hopper (compute capability 9.0) only; backward uses it where it can
};

// Enqueue the kernels of one call on `stream`, which belongs to the current device and may be
// capturing a graph. They do not synchronize and allocate nothing. The kernels keep the order of
// the stream, like ordinary kernels, with one exception: from Hopper on, they may read the
// *weights* while the stream's earlier work is still running. (They are launched with programmatic
// stream serialization, as in "swiglu/cuda.h".)
//
// REQUIRES: the host has synchronized with the work that wrote the weights. All other memory may be
// written by earlier work of the stream. Everything lies in memory of the current device and lives
// until the kernels are done. An output overlaps neither an input, nor another output, nor the
// workspace.
//
// Return cudaSuccess once the kernels are enqueued. If M is 0, there are none, but zeros may have
// to be written. cudaErrorInvalidValue: a dtype other than FP16 and BF16; H or I that is not a
// multiple of kMlpSizeStep from that to kMaxMlpSize; M that is negative or above kMaxMlpTokens; a
// null pointer, or one not aligned to kCudaMlpAlignment; backward without any output; a workspace
// that is too small; an unknown path or MlpSums. cudaErrorNotSupported: kWgmma on another device
// than Hopper. These are checked before anything is enqueued. Any other error is the one that a
// launch reports. Thread-safe; each call that is running has a workspace of its own.
cudaError_t MlpForwardCuda(const CudaMlpWeights& weights, const CudaMlpForward& call, MlpPath path,
                           cudaStream_t stream);
cudaError_t MlpBackwardCuda(const CudaMlpWeights& weights, const CudaMlpBackward& call,
                            MlpPath path, cudaStream_t stream);

}  // namespace swiglu
