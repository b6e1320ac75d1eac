// SPDX-License-Identifier: Apache-2.0
//
// Hopper's instructions, each as a function: barriers in shared memory, tensor copies (TMA),
// and matrix products of a warpgroup (wgmma). The PTX ISA manual defines them. Compiles
// for sm_90a only. Private to the kernels.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "swiglu/dtype.h"

namespace swiglu::internal::hopper {

// True for one thread of the warp, always the same. All threads of the warp call this together.
__device__ inline bool IsElected() {
  uint32_t is_elected;
  asm volatile(
      "{\n\t"
      ".reg .pred elected;\n\t"
      "elect.sync _|elected, 0xFFFFFFFF;\n\t"
      "selp.b32 %0, 1, 0, elected;\n\t"
      "}"
      : "=r"(is_elected));
  return is_elected != 0;
}

// ---- Barriers in shared memory ----

// A barrier's phase ends when `count` arrivals have come and all announced bytes have been copied.
__device__ inline void InitBarrier(uint32_t barrier, uint32_t count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}

// Makes initialised barriers visible to tensor copies.
__device__ inline void FenceInitBarriers() {
  asm volatile("fence.mbarrier_init.release.cluster;\n\tfence.proxy.async;" ::: "memory");
}

__device__ inline void ArriveAndExpect(uint32_t barrier, uint32_t num_bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier),
               "r"(num_bytes)
               : "memory");
}

__device__ inline void Arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Waits until the phase with this parity has ended.
__device__ inline void AwaitBarrier(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n\t"
      ".reg .pred done;\n\t"
      "again:\n\t"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t"
      "@!done bra again;\n\t"
      "}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// ---- Tensor copies ----

__device__ inline void PrefetchMap(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// Copies the box at these coordinates (innermost first) to shared memory. Elements outside of the
// tensor become zeros. The bytes count for `barrier`.
__device__ inline void CopyBox(const CUtensorMap& map, uint32_t to, uint32_t barrier, int x,
                               int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
      "[%1, {%3, %4}], [%2];" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(x), "r"(y)
      : "memory");
}

__device__ inline void CopyBox(const CUtensorMap& map, uint32_t to, uint32_t barrier, int x, int y,
                               int z, int w) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
      "[%1, {%3, %4, %5, %6}], [%2];" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w)
      : "memory");
}

// ---- Registers of a warpgroup ----

template <int kRegisters>
__device__ inline void KeepRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

template <int kRegisters>
__device__ inline void TakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// ---- Products of a warpgroup ----

// An operand in shared memory: rows of 128 bytes, swizzled as tensor copies swizzle them
// (CU_TENSOR_MAP_SWIZZLE_128B), every 8 rows 1024 bytes after the 8 before. The rows are outputs or
// tokens (64 elements of depth each), or, for a transposed operand, the depth (64 outputs or tokens
// each).
class Operand {
 public:
  __device__ explicit Operand(uint32_t address) : low_(kUnused | address >> 4) {}

  // A transposed operand with more than 64 outputs or tokens: each next 64 lie `panel_bytes` after
  // the 64 before.
  __device__ Operand(uint32_t address, int panel_bytes)
      : low_(static_cast<uint32_t>(panel_bytes) / 16 << 16 | address >> 4) {}

  // The descriptor of what lies `offset` bytes further.
  __device__ uint64_t At(int offset) const {
    return uint64_t{kSwizzle128 | kBetweenGroups} << 32 |
           (low_ + static_cast<uint32_t>(offset) / 16);
  }

 private:
  static constexpr uint32_t kSwizzle128 = 1u << 30, kBetweenGroups = 1024 / 16;
  static constexpr uint32_t kUnused = 1u << 16;

  uint32_t low_;  // of the descriptor
};

// Orders this thread's accesses to registers before the products that follow.
__device__ inline void FenceProducts() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ inline void CommitProducts() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits until at most kPending committed groups of products are running.
template <int kPending>
__device__ inline void AwaitProducts() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// The names of the registers in the instructions below, and the registers.
#define SWIGLU_NAMES_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define SWIGLU_NAMES_16 \
  SWIGLU_NAMES_8        \
  ", %8, %9, %10, %11, %12, %13, %14, %15"
#define SWIGLU_NAMES_32 \
  SWIGLU_NAMES_16       \
  ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define SWIGLU_NAMES_64                                                              \
  SWIGLU_NAMES_32                                                                    \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47" \
  ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define SWIGLU_NAMES_88                                                              \
  SWIGLU_NAMES_64                                                                    \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79" \
  ", %80, %81, %82, %83, %84, %85, %86, %87"
#define SWIGLU_NAMES_96 \
  SWIGLU_NAMES_88       \
  ", %88, %89, %90, %91, %92, %93, %94, %95"
#define SWIGLU_NAMES_112 \
  SWIGLU_NAMES_96        \
  ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define SWIGLU_NAMES_128                                                                         \
  SWIGLU_NAMES_112                                                                               \
  ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, " \
  "%127"
#define SWIGLU_SUMS_8(i)                                                                     \
  "+f"(sums[i]), "+f"(sums[i + 1]), "+f"(sums[i + 2]), "+f"(sums[i + 3]), "+f"(sums[i + 4]), \
      "+f"(sums[i + 5]), "+f"(sums[i + 6]), "+f"(sums[i + 7])
#define SWIGLU_SUMS_16(i) SWIGLU_SUMS_8(i), SWIGLU_SUMS_8(i + 8)
#define SWIGLU_SUMS_32(i) SWIGLU_SUMS_16(i), SWIGLU_SUMS_16(i + 16)
#define SWIGLU_SUMS_64(i) SWIGLU_SUMS_32(i), SWIGLU_SUMS_32(i + 32)
#define SWIGLU_SUMS_88(i) SWIGLU_SUMS_64(i), SWIGLU_SUMS_16(i + 64), SWIGLU_SUMS_8(i + 80)
#define SWIGLU_SUMS_96(i) SWIGLU_SUMS_64(i), SWIGLU_SUMS_32(i + 64)
#define SWIGLU_SUMS_112(i) SWIGLU_SUMS_96(i), SWIGLU_SUMS_16(i + 96)
#define SWIGLU_SUMS_128(i) SWIGLU_SUMS_64(i), SWIGLU_SUMS_64(i + 64)

// One instruction: the type and number of columns, the names of registers and operands, and which
// of the operands are transposed.
#define SWIGLU_WGMMA(type, columns, count, rows_name, columns_name, transposes)               \
  asm volatile(                                                                               \
      "{\n\t.reg .pred adds;\n\tsetp.ne.b32 adds, 1, 0;\n\t"                                  \
      "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type "." type                    \
      " {" SWIGLU_NAMES_##count "}, " rows_name ", " columns_name ", adds, 1, 1, " transposes \
                                ";\n\t}"                                                      \
      : SWIGLU_SUMS_##count(0)                                                                \
      : "l"(rows_operand), "l"(columns_operand))

#define SWIGLU_WGMMA_BY_LAYOUT(type, columns, count, rows_name, columns_name) \
  if constexpr (kRowsTransposed && kColumnsTransposed) {                      \
    SWIGLU_WGMMA(type, columns, count, rows_name, columns_name, "1, 1");      \
  } else if constexpr (kRowsTransposed) {                                     \
    SWIGLU_WGMMA(type, columns, count, rows_name, columns_name, "1, 0");      \
  } else if constexpr (kColumnsTransposed) {                                  \
    SWIGLU_WGMMA(type, columns, count, rows_name, columns_name, "0, 1");      \
  } else {                                                                    \
    SWIGLU_WGMMA(type, columns, count, rows_name, columns_name, "0, 0");      \
  }

#define SWIGLU_WGMMA_BY_TYPE(columns, count, rows_name, columns_name)       \
  if constexpr (kDtype == Dtype::kFp16) {                                   \
    SWIGLU_WGMMA_BY_LAYOUT("f16", columns, count, rows_name, columns_name)  \
  } else {                                                                  \
    SWIGLU_WGMMA_BY_LAYOUT("bf16", columns, count, rows_name, columns_name) \
  }

// Starts sums += rows * columns: 64 rows, 2 * kSums columns, 16 of the depth. All threads of the
// warpgroup call this together. The thread at `lane` of warp w holds in sums[4 * j] to
// sums[4 * j + 3] what mma.sync leaves there for rows from 16 w and columns from 8 j on.
template <Dtype kDtype, bool kRowsTransposed, bool kColumnsTransposed, int kSums>
__device__ inline void StartProduct(float (&sums)[kSums], uint64_t rows_operand,
                                    uint64_t columns_operand) {
  if constexpr (kSums == 8) {
    SWIGLU_WGMMA_BY_TYPE("16", 8, "%8", "%9")
  } else if constexpr (kSums == 16) {
    SWIGLU_WGMMA_BY_TYPE("32", 16, "%16", "%17")
  } else if constexpr (kSums == 32) {
    SWIGLU_WGMMA_BY_TYPE("64", 32, "%32", "%33")
  } else if constexpr (kSums == 64) {
    SWIGLU_WGMMA_BY_TYPE("128", 64, "%64", "%65")
  } else if constexpr (kSums == 88) {
    SWIGLU_WGMMA_BY_TYPE("176", 88, "%88", "%89")
  } else if constexpr (kSums == 96) {
    SWIGLU_WGMMA_BY_TYPE("192", 96, "%96", "%97")
  } else if constexpr (kSums == 112) {
    SWIGLU_WGMMA_BY_TYPE("224", 112, "%112", "%113")
  } else {
    static_assert(kSums == 128);
    SWIGLU_WGMMA_BY_TYPE("256", 128, "%128", "%129")
  }
}

#undef SWIGLU_WGMMA_BY_TYPE
#undef SWIGLU_WGMMA_BY_LAYOUT
#undef SWIGLU_WGMMA
#undef SWIGLU_SUMS_128
#undef SWIGLU_NAMES_128
#undef SWIGLU_SUMS_112
#undef SWIGLU_NAMES_112
#undef SWIGLU_SUMS_96
#undef SWIGLU_NAMES_96
#undef SWIGLU_SUMS_88
#undef SWIGLU_NAMES_88
#undef SWIGLU_SUMS_64
#undef SWIGLU_NAMES_64
#undef SWIGLU_SUMS_32
#undef SWIGLU_NAMES_32
#undef SWIGLU_SUMS_16
#undef SWIGLU_NAMES_16
#undef SWIGLU_SUMS_8
#undef SWIGLU_NAMES_8

}  // namespace swiglu::internal::hopper
