// SPDX-License-Identifier: Apache-2.0
//
// Copies of many pieces: each byte arrives, and no other is touched. Those that compute need a
// device.
#include "swiglu/cuda_copy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace swiglu {
namespace {

void* Somewhere(uintptr_t address) { return std::bit_cast<void*>(address); }

cudaError_t Status(const CopyPiece& piece) { return CopyCuda({&piece, 1}, {}, nullptr); }

TEST(CudaCopyArgumentsTest, RefusesWhatItCannotCopy) {
  EXPECT_EQ(Status({nullptr, nullptr, 0}), cudaSuccess);
  EXPECT_EQ(CopyCuda({}, {}, nullptr), cudaSuccess);
  EXPECT_EQ(Status({nullptr, Somewhere(0x1000), 16}), cudaErrorInvalidValue);
  EXPECT_EQ(Status({Somewhere(0x1000), nullptr, 16}), cudaErrorInvalidValue);
  EXPECT_EQ(Status({Somewhere(0x1008), Somewhere(0x2000), 16}), cudaErrorInvalidValue);
  EXPECT_EQ(Status({Somewhere(0x1000), Somewhere(0x2008), 16}), cudaErrorInvalidValue);
  EXPECT_EQ(Status({Somewhere(0x1000), Somewhere(0x2000), 8}), cudaErrorInvalidValue);
  EXPECT_EQ(Status({Somewhere(0x1000), Somewhere(0x2000), -16}), cudaErrorInvalidValue);
  const std::vector<CopyPiece> many(kMaxCopyPieces + 1, CopyPiece{nullptr, nullptr, 0});
  EXPECT_EQ(CopyCuda(many, {}, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(CopyCuda({}, {.max_blocks = -1}, nullptr), cudaErrorInvalidValue);
}

TEST(CudaCopyTest, CopiesEveryPieceAndNothingElse) {
  int num_devices = 0;
  if (cudaGetDeviceCount(&num_devices) != cudaSuccess || num_devices == 0) {
    GTEST_SKIP() << "no CUDA device";
  }
  for (const int num_pieces : {1, 2, 16, 17, kMaxCopyPieces}) {
    for (const int max_blocks : {0, 1, 32}) {
      // Sizes around those of a tile, and a gap of 16 bytes behind each piece.
      std::vector<int64_t> sizes;
      int64_t total_bytes = 0;
      for (int i = 0; i < num_pieces; ++i) {
        sizes.push_back(i % 5 == 3 ? 0 : (i * 37 % 600 + 1) * kCopyAlignment);
        total_bytes += sizes.back() + kCopyAlignment;
      }
      const auto size = static_cast<size_t>(total_bytes);
      std::vector<uint8_t> from(size);
      for (size_t i = 0; i < size; ++i) from[i] = static_cast<uint8_t>(i * 7 + i / 251);
      std::vector<uint8_t> expected(size, 0xEE);
      void* d_from = nullptr;
      void* to = nullptr;  // pinned: both kinds of memory are in use
      ASSERT_EQ(cudaMalloc(&d_from, size), cudaSuccess);
      ASSERT_EQ(cudaMallocHost(&to, size), cudaSuccess);
      ASSERT_EQ(cudaMemcpy(d_from, from.data(), size, cudaMemcpyDefault), cudaSuccess);
      std::fill_n(static_cast<uint8_t*>(to), size, uint8_t{0xEE});
      std::vector<CopyPiece> pieces;
      size_t at = 0;
      for (const int64_t size_bytes : sizes) {
        pieces.push_back(
            {static_cast<std::byte*>(d_from) + at, static_cast<std::byte*>(to) + at, size_bytes});
        std::copy_n(from.begin() + static_cast<ptrdiff_t>(at), size_bytes,
                    expected.begin() + static_cast<ptrdiff_t>(at));
        at += static_cast<size_t>(size_bytes + kCopyAlignment);
      }
      ASSERT_EQ(CopyCuda(pieces, {.max_blocks = max_blocks}, nullptr), cudaSuccess);
      ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
      const auto* got = static_cast<const uint8_t*>(to);
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), got))
          << num_pieces << " pieces, " << max_blocks << " blocks";
      cudaFree(d_from);
      cudaFreeHost(to);
    }
  }
}

}  // namespace
}  // namespace swiglu
