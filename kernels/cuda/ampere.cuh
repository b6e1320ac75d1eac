// SPDX-License-Identifier: Apache-2.0
//
// The instructions of the mma.sync path, each as a function: copies to shared memory (cp.async),
// loads of matrices from there (ldmatrix), and matrix products of a warp (mma.sync). The PTX ISA
// manual defines them. On every GPU from Ampere on. Private to the kernels.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "swiglu/dtype.h"

namespace swiglu::internal {

// ---- Copies to shared memory ----

__device__ inline uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Copies 16 bytes to shared memory, or writes zeros there if there is nothing to copy.
__device__ inline void CopyAsync(uint32_t to, const void* from, bool exists) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(exists ? 16 : 0)
               : "memory");
}

__device__ inline void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most kPending of this thread's groups of copies are not done.
template <int kPending>
__device__ inline void AwaitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

__device__ inline void PrefetchIntoL2(const void* from) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(from));
}

// ---- Matrices in shared memory ----

// Where the 16 bytes at `chunk` of row `row` lie in a panel, whose rows have 128 bytes. Eight rows
// have the same chunk in eight different places, so ldmatrix reads them without bank conflicts.
__device__ inline uint32_t PlaceInPanel(int row, int chunk) {
  return static_cast<uint32_t>(row * 128 + ((chunk ^ (row & 7)) << 4));
}

// Loads four 8 by 8 matrices. Lane i has the address of row i % 8 of matrix i / 8.
template <bool kTransposed>
__device__ inline void LoadMatrices(uint32_t address, uint32_t (&words)[4]) {
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(address)
                 : "memory");
  }
}

// ---- Products of a warp ----

// sums += a * b. `a` has 16 rows, `b` has 8 columns, and both are 16 deep. The columns lie in two
// words: depths 0 to 7, and 8 to 15.
template <Dtype kDtype>
__device__ inline void MultiplyAccumulate(float (&sums)[4], const uint32_t (&a)[4], uint32_t b_low,
                                          uint32_t b_high) {
  if constexpr (kDtype == Dtype::kFp16) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b_low), "r"(b_high));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b_low), "r"(b_high));
  }
}

}  // namespace swiglu::internal
