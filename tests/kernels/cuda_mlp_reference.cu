// SPDX-License-Identifier: Apache-2.0
//
// The plain MLP: products by mma.sync with k ascending in steps of 16, one accumulator for each
// output; SwiGLU by the launchers that the golden tests check.
#include <algorithm>

#include "swiglu/cuda.h"
#include "swiglu/segment.h"
#include "tests/kernels/cuda_mlp_reference.h"

namespace swiglu::kernels {
namespace {

constexpr int kBlocks = 512, kThreads = 256;

__device__ float Widen(Dtype dtype, uint16_t bits) {
  if (dtype == Dtype::kBf16) return __uint_as_float(static_cast<uint32_t>(bits) << 16);
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

__device__ uint16_t Round(Dtype dtype, float value) {
  uint16_t bits;
  if (dtype == Dtype::kFp16) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  } else {
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  }
  return bits;
}

// ---- Products ----

// A matrix whose rows have a depth: the element of a row at depth k is data[row * row_stride +
// k * k_stride].
struct Operand {
  const uint16_t* data;
  int64_t row_stride, k_stride;
};

// Sum[token][output] = sum over k of tokens[token][k] * weights[output][k]. One of `out` and `sums`
// is null.
struct PlainProduct {
  Dtype dtype;
  Operand weights, tokens;
  int num_tokens, num_outputs, depth;
  uint16_t* out;  // T(sum)
  float* sums;    // the sum itself
};

__global__ void Multiply(PlainProduct p) {
  const int row = static_cast<int>(threadIdx.x) / 4, pair = static_cast<int>(threadIdx.x) % 4 * 2;
  const int first_output = static_cast<int>(blockIdx.x) * 16;
  const int first_token = static_cast<int>(blockIdx.y) * 8;
  const auto weight = [&](int output, int k) -> uint32_t {
    const bool exists = output < p.num_outputs && k < p.depth;
    return exists ? p.weights.data[output * p.weights.row_stride + k * p.weights.k_stride] : 0;
  };
  const auto token_at = [&](int token, int k) -> uint32_t {
    const bool exists = token < p.num_tokens && k < p.depth;
    return exists ? p.tokens.data[token * p.tokens.row_stride + k * p.tokens.k_stride] : 0;
  };

  float sums[4] = {};
  for (int first_k = 0; first_k < p.depth; first_k += 16) {
    uint32_t a[4], b[2];
    for (int i = 0; i < 4; ++i) {
      const int output = first_output + row + i % 2 * 8, k = first_k + pair + i / 2 * 8;
      a[i] = weight(output, k) | weight(output, k + 1) << 16;
    }
    for (int i = 0; i < 2; ++i) {
      const int k = first_k + pair + i * 8;
      b[i] = token_at(first_token + row, k) | token_at(first_token + row, k + 1) << 16;
    }
    if (p.dtype == Dtype::kFp16) {
      asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
          "{%8, %9}, {%0, %1, %2, %3};"
          : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    } else {
      asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
          "{%8, %9}, {%0, %1, %2, %3};"
          : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
  }

  for (int i = 0; i < 4; ++i) {
    const int output = first_output + row + i / 2 * 8, token = first_token + pair + i % 2;
    if (output >= p.num_outputs || token >= p.num_tokens) continue;
    const int64_t at = int64_t{token} * p.num_outputs + output;
    if (p.out != nullptr) p.out[at] = Round(p.dtype, sums[i]);
    if (p.sums != nullptr) p.sums[at] = sums[i];
  }
}

void Launch(const PlainProduct& p) {
  const dim3 grid(static_cast<unsigned>((p.num_outputs + 15) / 16),
                  static_cast<unsigned>((p.num_tokens + 7) / 8));
  Multiply<<<grid, 32>>>(p);
}

// out = T(in times the transpose of a [num_outputs][depth] matrix).
void TimesTransposed(const CudaMlpProblem& m, const uint16_t* in, const uint16_t* matrix,
                     int num_outputs, int depth, uint16_t* out) {
  Launch({m.dtype,
          {matrix, depth, 1},
          {in, depth, 1},
          m.num_tokens,
          num_outputs,
          depth,
          out,
          nullptr});
}

// out = T(in times a [depth][num_outputs] matrix).
void Times(const CudaMlpProblem& m, const uint16_t* in, const uint16_t* matrix, int num_outputs,
           int depth, uint16_t* out) {
  Launch({m.dtype,
          {matrix, 1, num_outputs},
          {in, depth, 1},
          m.num_tokens,
          num_outputs,
          depth,
          out,
          nullptr});
}

// sums = the transpose of a [num_tokens][num_rows] matrix times a [num_tokens][num_columns] one.
void TransposeTimes(const CudaMlpProblem& m, const uint16_t* rows, int num_rows,
                    const uint16_t* columns, int num_columns, float* sums) {
  Launch({m.dtype,
          {columns, 1, num_columns},
          {rows, 1, num_rows},
          num_rows,
          num_columns,
          m.num_tokens,
          nullptr,
          sums});
}

// out = T(a + b).
__global__ void AddRounded(Dtype dtype, const uint16_t* a, const uint16_t* b, uint16_t* out,
                           int64_t n) {
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < n; i += kBlocks * kThreads) {
    out[i] = Round(dtype, Widen(dtype, a[i]) + Widen(dtype, b[i]));
  }
}

// ---- Numbers ----

__device__ uint64_t Hash(uint64_t z) {
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
  z = (z ^ z >> 27) * 0x94D049BB133111EB;
  return z ^ z >> 31;
}

// Infinities, a NaN, the greatest and the least numbers, and both zeros.
__device__ uint16_t Special(Dtype dtype, uint32_t number) {
  constexpr uint16_t kOfFp16[8] = {0x8000, 0x7C00, 0xFC00, 0x7E01, 0x0001, 0x8003, 0x7BFF, 0};
  constexpr uint16_t kOfBf16[8] = {0x8000, 0x7F80, 0xFF80, 0x7FC1, 0x0001, 0x8003, 0x7F7F, 0};
  return dtype == Dtype::kFp16 ? kOfFp16[number % 8] : kOfBf16[number % 8];
}

__global__ void Fill(Dtype dtype, MlpNumbers numbers, uint16_t* data, int64_t n) {
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < n; i += kBlocks * kThreads) {
    const uint64_t bits = Hash(numbers.seed * 0x9E3779B97F4A7C15 + static_cast<uint64_t>(i));
    // The sum of four uniform numbers is near to a normal one.
    float value = -2;
    for (int part = 0; part < 4; ++part) {
      value += static_cast<float>(bits >> 16 * part & 0xFFFF) * 0x1p-16f;
    }
    data[i] = Round(dtype, value * numbers.scale);
    if (numbers.special_in == 0) continue;
    const auto more = static_cast<uint32_t>(Hash(bits + 1));
    if (more % numbers.special_in == 0) {
      const auto pattern = static_cast<uint16_t>(bits);
      data[i] = more >> 16 & 1 ? pattern : Special(dtype, more >> 17);
    }
  }
}

// ---- Comparison ----

__device__ bool IsNan(Dtype dtype, uint16_t bits) {
  const float value = Widen(dtype, bits);
  return value != value;
}
__device__ bool IsNan(Dtype, uint32_t bits) { return (bits & 0x7FFFFFFFu) > 0x7F800000u; }

template <class Bits>
__global__ void Compare(Dtype dtype, const Bits* actual, const Bits* expected, int64_t n,
                        MlpDifferences* differences) {
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < n; i += kBlocks * kThreads) {
    const bool is_nan = IsNan(dtype, expected[i]);
    if (is_nan) atomicAdd(&differences->num_nans, 1ull);
    if (actual[i] == expected[i] || (is_nan && IsNan(dtype, actual[i]))) continue;
    atomicAdd(&differences->num_wrong, 1ull);
    differences->first = i;
  }
}

template <class Bits>
cudaError_t CompareBits(Dtype dtype, const Bits* actual, const Bits* expected, int64_t n,
                        MlpDifferences& differences) {
  MlpDifferences* d_differences = nullptr;
  cudaError_t error = cudaMalloc(&d_differences, sizeof(differences));
  if (error != cudaSuccess) return error;
  differences = {};
  cudaMemcpy(d_differences, &differences, sizeof(differences), cudaMemcpyHostToDevice);
  Compare<<<kBlocks, kThreads>>>(dtype, actual, expected, n, d_differences);
  error = cudaMemcpy(&differences, d_differences, sizeof(differences), cudaMemcpyDeviceToHost);
  cudaFree(d_differences);
  return error;
}

// The intermediate results of backward, [M][I] each but the last two, which are [M][H].
struct Scratch {
  Scratch(const CudaMlpProblem& m, uint16_t* scratch) {
    const int64_t n = int64_t{m.num_tokens} * m.intermediate;
    e = scratch, g = e + n, h = g + n, dw = h + n, df = dw + n, de = df + n;
    of_df = de + n, of_de = of_df + int64_t{m.num_tokens} * m.hidden;
  }
  uint16_t *e, *g, *h, *dw, *df, *de, *of_df, *of_de;
};

}  // namespace

int64_t ReferenceScratchElements(const CudaMlpProblem& m) {
  return int64_t{m.num_tokens} * (int64_t{6} * m.intermediate + int64_t{2} * m.hidden);
}

cudaError_t ReferenceForward(const CudaMlpProblem& m, uint16_t* scratch, uint16_t* y) {
  const Scratch at(m, scratch);
  TimesTransposed(m, m.x, m.gate, m.intermediate, m.hidden, at.e);
  TimesTransposed(m, m.x, m.up, m.intermediate, m.hidden, at.g);
  const ForwardSegment segment{at.e, at.g, at.h, int64_t{m.num_tokens} * m.intermediate};
  if (const cudaError_t error = ForwardCuda(m.dtype, {&segment, 1}, {}, nullptr);
      error != cudaSuccess) {
    return error;
  }
  TimesTransposed(m, at.h, m.down, m.hidden, m.intermediate, y);
  return cudaGetLastError();
}

cudaError_t ReferenceBackward(const CudaMlpProblem& m, uint16_t* scratch, uint16_t* dx) {
  const Scratch at(m, scratch);
  TimesTransposed(m, m.x, m.gate, m.intermediate, m.hidden, at.e);
  TimesTransposed(m, m.x, m.up, m.intermediate, m.hidden, at.g);
  Times(m, m.dy, m.down, m.intermediate, m.hidden, at.dw);
  const BackwardSegment segment{
      at.dw, at.e, at.g, at.h, at.df, at.de, int64_t{m.num_tokens} * m.intermediate};
  if (const cudaError_t error = BackwardCuda(m.dtype, {&segment, 1}, {}, nullptr);
      error != cudaSuccess) {
    return error;
  }
  Times(m, at.df, m.up, m.hidden, m.intermediate, at.of_df);
  Times(m, at.de, m.gate, m.hidden, m.intermediate, at.of_de);
  AddRounded<<<kBlocks, kThreads>>>(m.dtype, at.of_df, at.of_de, dx,
                                    int64_t{m.num_tokens} * m.hidden);
  return cudaGetLastError();
}

ReferenceHidden HiddenIn(const CudaMlpProblem& m, uint16_t* scratch) {
  const Scratch at(m, scratch);
  return {at.h, at.df, at.de};
}

cudaError_t ReferenceGradients(const CudaMlpProblem& m, const ReferenceHidden& hidden,
                               float* d_gate, float* d_up, float* d_down) {
  TransposeTimes(m, hidden.de, m.intermediate, m.x, m.hidden, d_gate);
  TransposeTimes(m, hidden.df, m.intermediate, m.x, m.hidden, d_up);
  TransposeTimes(m, m.dy, m.hidden, hidden.h, m.intermediate, d_down);
  return cudaGetLastError();
}

cudaError_t FillMlp(Dtype dtype, const MlpNumbers& numbers, uint16_t* data, int64_t num_elements) {
  Fill<<<kBlocks, kThreads>>>(dtype, numbers, data, num_elements);
  return cudaGetLastError();
}

cudaError_t CompareMlp(Dtype dtype, const uint16_t* actual, const uint16_t* expected,
                       int64_t num_elements, MlpDifferences& differences) {
  return CompareBits(dtype, actual, expected, num_elements, differences);
}

cudaError_t CompareMlp(const float* actual, const float* expected, int64_t num_elements,
                       MlpDifferences& differences) {
  return CompareBits(Dtype::kFp32, reinterpret_cast<const uint32_t*>(actual),
                     reinterpret_cast<const uint32_t*>(expected), num_elements, differences);
}

}  // namespace swiglu::kernels
