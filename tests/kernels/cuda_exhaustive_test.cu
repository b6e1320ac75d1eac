// SPDX-License-Identifier: Apache-2.0
//
// Every value there is: forward over all pairs of 16-bit patterns, backward over all gates, every
// small size, every alignment, and the borders of 32-bit numbers, all elements checked on the
// device. What is expected comes from the golden table of f, products rounded once, and for de from
// the contract's instructions written out once more below. Takes about a minute on an H100 and up
// to 46 GB of its memory.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <iostream>
#include <memory>
#include <random>
#include <vector>

#include "swiglu/cuda.h"
#include "tests/kernels/cuda_expected.cuh"
#include "tests/kernels/cuda_runner.h"
#include "tests/kernels/golden.h"

namespace swiglu::kernels {
namespace {

using expected::AllFp32Gates;
using expected::AllGates;
using expected::AllPairs;
using expected::Check;
using expected::Element;
using expected::Fill;
using expected::Findings;
using expected::RandomInputs;

// ---- The cases ----

enum class Op { kForward, kBackward };
enum class Place { kInPlace, kOutOfPlace };

// dw, e, g and then h, df, de, so many elements past a 256-byte boundary.
struct Offsets {
  int64_t of[6] = {};
};
constexpr Offsets Alike(int64_t offset) {
  return {{offset, offset, offset, offset, offset, offset}};
}

// Where the tensors of one segment lie: dw, e, g, h, df, de; nullptr for those that forward lacks.
template <Dtype kDtype>
struct Tensors {
  Element<kDtype>* of[6] = {};
  int64_t num_elements = 0;

  ForwardSegment forward() const { return {of[1], of[2], of[3], num_elements}; }
  BackwardSegment backward() const {
    return {of[0], of[1], of[2], of[3], of[4], of[5], num_elements};
  }
};

class CudaExhaustiveTest : public testing::Test {
 protected:
  static constexpr int kBlocks = 132 * 8, kThreads = 256;

  void SetUp() override {
    const std::string missing = WhyNoCudaDevice();
    if (!missing.empty()) GTEST_SKIP() << missing;
    findings_ = AllocateOnDevice(sizeof(Findings));
    ASSERT_NE(findings_, nullptr);
  }

  // Memory for `num_tensors` of `n` elements with room for offsets; false where there is not
  // enough.
  bool Reserve(Dtype dtype, int64_t n, int num_tensors) {
    arena_.reset();
    arena_ = AllocateOnDevice(static_cast<size_t>(num_tensors) *
                              (static_cast<size_t>(n) * ElementBytes(dtype) + 512));
    return arena_ != nullptr;
  }

  // From here on tensors are laid from the beginning again.
  void Rewind() { used_bytes_ = 0; }

  // Lays a segment's tensors one behind the other.
  template <Dtype kDtype>
  Tensors<kDtype> Lay(Op op, int64_t n, Place place, const Offsets& offsets) {
    Tensors<kDtype> tensors;
    tensors.num_elements = n;
    for (int k = op == Op::kForward ? 1 : 0; k < 3; ++k) {
      tensors.of[k] = Take<kDtype>(n, offsets.of[k]);
    }
    for (int k = 0; k < (op == Op::kForward ? 1 : 3); ++k) {
      // Forward's h takes the place of e, backward's outputs those of dw, e and g.
      tensors.of[3 + k] = place == Place::kInPlace ? tensors.of[op == Op::kForward ? 1 : k]
                                                   : Take<kDtype>(n, offsets.of[3 + k]);
    }
    return tensors;
  }

  template <Dtype kDtype, class Inputs>
  void FillInputs(const Inputs& inputs, const Tensors<kDtype>& tensors) {
    for (int k = 0; k < 3; ++k) {
      if (tensors.of[k] == nullptr) continue;
      Fill<kDtype><<<kBlocks, kThreads>>>(inputs, k, tensors.of[k], tensors.num_elements);
    }
  }

  template <Dtype kDtype, class Inputs>
  void ExpectOutputs(const Inputs& inputs, const Tensors<kDtype>& tensors) {
    const Findings none{0, 0, ~0ull};
    cudaMemcpyAsync(findings_.get(), &none, sizeof(none), cudaMemcpyHostToDevice);
    Check<kDtype><<<kBlocks, kThreads>>>(inputs, tensors.of[3], tensors.of[4], tensors.of[5],
                                         tensors.num_elements, Table(kDtype),
                                         reinterpret_cast<Findings*>(findings_.get()));
    ASSERT_EQ(cudaGetLastError(), cudaSuccess);
    Findings found{};
    ASSERT_EQ(cudaMemcpy(&found, findings_.get(), sizeof(found), cudaMemcpyDeviceToHost),
              cudaSuccess);
    num_checked_ += static_cast<int64_t>(found.num_checked);
    EXPECT_EQ(found.num_checked, static_cast<unsigned long long>(tensors.num_elements));
    EXPECT_EQ(found.num_differing, 0u)
        << Name(kDtype) << (tensors.of[4] == nullptr ? " forward, " : " backward, ")
        << tensors.num_elements << " elements; the first that differs is " << found.first;
  }

  // Computes n elements and checks every one.
  template <Dtype kDtype, class Inputs>
  void Verify(const Inputs& inputs, Op op, int64_t n, Place place, const Offsets& offsets = {}) {
    Rewind();
    const Tensors<kDtype> tensors = Lay<kDtype>(op, n, place, offsets);
    FillInputs(inputs, tensors);
    ASSERT_EQ(Launch<kDtype>(op, {tensors}, {}, nullptr), cudaSuccess);
    ExpectOutputs(inputs, tensors);
  }

  // One launch of all segments.
  template <Dtype kDtype>
  static cudaError_t Launch(Op op, const std::vector<Tensors<kDtype>>& all, LaunchLimits limits,
                            cudaStream_t stream) {
    std::vector<ForwardSegment> forward;
    std::vector<BackwardSegment> backward;
    for (const Tensors<kDtype>& tensors : all) {
      forward.push_back(tensors.forward());
      backward.push_back(tensors.backward());
    }
    return op == Op::kForward ? ForwardCuda(kDtype, forward, limits, stream)
                              : BackwardCuda(kDtype, backward, limits, stream);
  }

  void TearDown() override {
    if (num_checked_ > 0) std::cout << "checked " << num_checked_ << " elements\n";
  }

 private:
  template <Dtype kDtype>
  Element<kDtype>* Take(int64_t n, int64_t offset) {
    used_bytes_ = (used_bytes_ + 255) / 256 * 256;
    auto* taken = reinterpret_cast<Element<kDtype>*>(arena_.get() + used_bytes_) + offset;
    used_bytes_ += (n + offset) * static_cast<int64_t>(sizeof(Element<kDtype>));
    return taken;
  }

  // f of every pattern on the device; nullptr for FP32.
  const uint16_t* Table(Dtype dtype) {
    if (dtype == Dtype::kFp32) return nullptr;
    std::shared_ptr<std::byte>& table = tables_[static_cast<int>(dtype)];
    if (table == nullptr) {
      const Patterns patterns = ReadGoldenForward(dtype);
      const std::vector<uint16_t> narrow(patterns.begin(), patterns.end());
      table = AllocateOnDevice(narrow.size() * 2);
      cudaMemcpy(table.get(), narrow.data(), narrow.size() * 2, cudaMemcpyHostToDevice);
    }
    return reinterpret_cast<const uint16_t*>(table.get());
  }

  std::shared_ptr<std::byte> arena_, findings_, tables_[2];
  int64_t used_bytes_ = 0;
  int64_t num_checked_ = 0;
};

#define RESERVE_OR_SKIP(dtype, n, num_tensors)                                              \
  if (!Reserve(dtype, n, num_tensors)) {                                                    \
    GTEST_SKIP() << "the device has no room for " << (num_tensors) << " tensors of " << (n) \
                 << " elements";                                                            \
  }

TEST_F(CudaExhaustiveTest, ForwardIsRightForEveryPairOfFp16) {
  RESERVE_OR_SKIP(Dtype::kFp16, int64_t{1} << 26, 3);
  for (uint32_t e = 0; e < 65536; e += 1024) {
    Verify<Dtype::kFp16>(AllPairs{e, 0x3C00}, Op::kForward, int64_t{1} << 26, Place::kOutOfPlace);
  }
}

TEST_F(CudaExhaustiveTest, ForwardIsRightForEveryPairOfBf16) {
  RESERVE_OR_SKIP(Dtype::kBf16, int64_t{1} << 26, 3);
  for (uint32_t e = 0; e < 65536; e += 1024) {
    Verify<Dtype::kBf16>(AllPairs{e, 0x3F80}, Op::kForward, int64_t{1} << 26, Place::kOutOfPlace);
  }
}

TEST_F(CudaExhaustiveTest, EveryFp32GateIsRight) {
  RESERVE_OR_SKIP(Dtype::kFp32, int64_t{1} << 26, 3);
  for (uint64_t e = 0; e < uint64_t{1} << 32; e += uint64_t{1} << 26) {
    Verify<Dtype::kFp32>(AllFp32Gates{static_cast<uint32_t>(e)}, Op::kBackward, int64_t{1} << 26,
                         Place::kInPlace);
  }
}

// Backward over every gate: the golden values of dg, and pairs of dw and g that are new each time.
template <Dtype kDtype>
std::vector<uint32_t> UploadPairs(uint32_t seed, std::shared_ptr<std::byte>& d_pairs) {
  std::mt19937 random(seed);
  std::vector<uint32_t> dw, g;
  for (const GoldenRow& row : ReadGoldenBackward(kDtype)) {
    dw.push_back(row.dg);
    g.push_back(kDtype == Dtype::kFp16 ? 0x3C00 : 0x3F80);
  }
  for (int i = 0; i < 100; ++i) {
    for (std::vector<uint32_t>* side : {&dw, &g}) {
      side->push_back(i % 2 == 0 ? random() & 0xFFFF
                                 : RandomPatterns(kDtype, 1, static_cast<uint32_t>(random()))[0]);
    }
  }
  std::vector<uint32_t> pairs = dw;
  pairs.insert(pairs.end(), g.begin(), g.end());
  d_pairs = AllocateOnDevice(pairs.size() * 4);
  cudaMemcpy(d_pairs.get(), pairs.data(), pairs.size() * 4, cudaMemcpyHostToDevice);
  return pairs;
}

TEST_F(CudaExhaustiveTest, BackwardIsRightForEveryGateAndRandomPairs) {
  const uint32_t seed = std::random_device()();
  std::cout << "seed " << seed << "\n";
  const auto verify = [&]<Dtype kDtype>() {
    std::shared_ptr<std::byte> d_pairs;
    const size_t num_pairs = UploadPairs<kDtype>(seed, d_pairs).size() / 2;
    const auto* dw = reinterpret_cast<const uint32_t*>(d_pairs.get());
    const auto n = static_cast<int64_t>(num_pairs << 16);
    RESERVE_OR_SKIP(kDtype, n, 6);
    Verify<kDtype>(AllGates{dw, dw + num_pairs}, Op::kBackward, n, Place::kOutOfPlace);
    Verify<kDtype>(AllGates{dw, dw + num_pairs}, Op::kBackward, n, Place::kInPlace);
  };
  verify.operator()<Dtype::kFp16>();
  verify.operator()<Dtype::kBf16>();
}

// Every size, for each operation, dtype and place, with pointers that agree and that do not.
TEST_F(CudaExhaustiveTest, EverySizeUpTo4100IsRight) {
  RESERVE_OR_SKIP(Dtype::kFp32, 8192, 6);
  const auto verify = [&]<Dtype kDtype>() {
    for (int64_t n = 0; n <= 4100; ++n) {
      for (const Op op : {Op::kForward, Op::kBackward}) {
        for (const Place place : {Place::kInPlace, Place::kOutOfPlace}) {
          Verify<kDtype>(RandomInputs{1}, op, n, place, Alike(n % 8));
          Verify<kDtype>(RandomInputs{2}, op, n, place, {{n % 3, n % 5, 1, n % 7, 2, n % 8}});
        }
      }
    }
  };
  verify.operator()<Dtype::kFp16>();
  verify.operator()<Dtype::kBf16>();
  verify.operator()<Dtype::kFp32>();
}

// Every offset of each pointer of forward; of backward's six, every pair of them and random ones.
TEST_F(CudaExhaustiveTest, EveryAlignmentIsRight) {
  RESERVE_OR_SKIP(Dtype::kFp32, 8192, 6);
  constexpr int64_t kN = 5003;
  const Place out = Place::kOutOfPlace;
  for (int64_t i = 0; i < 512; ++i) {
    const int64_t a = i % 8, b = i / 8 % 8, c = i / 64;
    Verify<Dtype::kFp16>(RandomInputs{4}, Op::kForward, kN, out, {{0, a, b, c}});
    Verify<Dtype::kBf16>(RandomInputs{5}, Op::kForward, kN, out, {{0, a, b, c}});
    Verify<Dtype::kFp16>(RandomInputs{6}, Op::kBackward, kN, Place::kInPlace, {{a, b, c}});
    Verify<Dtype::kBf16>(RandomInputs{7}, Op::kBackward, kN, out, {{a, b, c, c, a, b}});
    Verify<Dtype::kFp32>(RandomInputs{8}, Op::kBackward, kN, out,
                         {{a % 4, b % 4, c % 4, b % 4, a % 4, c % 4}});
  }
  std::mt19937 random(9);
  for (int i = 0; i < 2000; ++i) {
    Offsets offsets;
    for (int64_t& offset : offsets.of) offset = random() % 8;
    Verify<Dtype::kFp16>(RandomInputs{10}, Op::kBackward, kN, out, offsets);
  }
}

// Around the borders at which 32-bit counts of elements and of bytes would wrap.
TEST_F(CudaExhaustiveTest, SizesAroundThe32BitBordersAreRight) {
  const int64_t border = int64_t{1} << 31;
  RESERVE_OR_SKIP(Dtype::kFp16, border + 70001, 3);
  const Offsets unalike{{1, 4, 6}};
  // 2^31 and 2^32 bytes, and 2^31 elements.
  for (const int64_t n : {border / 2 - 1, border / 2, border - 4097, border - 4096, border - 4095,
                          border - 1, border, border + 1, border + 4096, border + 70001}) {
    for (const Op op : {Op::kForward, Op::kBackward}) {
      Verify<Dtype::kFp16>(RandomInputs{11}, op, n, Place::kInPlace, Alike(3));
      Verify<Dtype::kBf16>(RandomInputs{12}, op, n, Place::kInPlace, unalike);
    }
  }
  for (const int64_t n :
       {border / 4 - 1, border / 4, border / 4 + 1, border / 2 - 1, border / 2, border / 2 + 1}) {
    Verify<Dtype::kFp32>(RandomInputs{13}, Op::kForward, n, Place::kInPlace, Alike(1));
    Verify<Dtype::kFp32>(RandomInputs{13}, Op::kBackward, n, Place::kInPlace);
  }
}

// One launch of many segments: every size of table, sizes alike and skewed either way, pointers
// that agree and that do not, bounded grids and unbounded ones.
TEST_F(CudaExhaustiveTest, EverySegmentOfAMixIsRight) {
  constexpr int64_t kHuge = 300'001;
  RESERVE_OR_SKIP(Dtype::kFp32, 2 * kHuge, 6);
  std::mt19937 random(18);
  const auto size_of = [&](int shape, int i, int count) -> int64_t {
    switch (shape) {
      case 0:
        return 1500;
      case 1:
        return i == 0 ? kHuge : 1 + i % 5;
      case 2:
        return i == count - 1 ? kHuge : 1 + i % 5;
      default:
        return static_cast<int64_t>(random() % 1800);  // 0 too
    }
  };
  const auto verify = [&]<Dtype kDtype>(Op op, Place place, int count, int shape, bool unalike,
                                        LaunchLimits limits) {
    Rewind();
    std::vector<Tensors<kDtype>> all;
    for (int i = 0; i < count; ++i) {
      Offsets offsets = Alike(random() % 8);
      if (unalike && i % 3 == 0) {
        for (int64_t& offset : offsets.of) offset = random() % 8;
      }
      all.push_back(Lay<kDtype>(op, size_of(shape, i, count), place, offsets));
      FillInputs(RandomInputs{static_cast<uint64_t>(100 + i)}, all.back());
    }
    ASSERT_EQ(Launch<kDtype>(op, all, limits, nullptr), cudaSuccess);
    for (int i = 0; i < count; ++i) {
      ExpectOutputs(RandomInputs{static_cast<uint64_t>(100 + i)}, all[i]);
    }
  };
  for (const int count : {1, 2, 16, 17, 64, 65, 256}) {
    for (int shape = 0; shape < 4; ++shape) {
      for (const Op op : {Op::kForward, Op::kBackward}) {
        for (const Place place : {Place::kInPlace, Place::kOutOfPlace}) {
          verify.operator()<Dtype::kFp16>(op, place, count, shape, true, {});
          verify.operator()<Dtype::kBf16>(op, place, count, shape, false, {});
          verify.operator()<Dtype::kFp32>(op, place, count, shape, true, {.max_blocks = 7});
          verify.operator()<Dtype::kBf16>(op, place, count, shape, false, {.max_blocks = 32});
        }
      }
    }
  }
}

// Each launch reads what the one before it wrote. Kernels may start before the one ahead of them is
// done, so this is where one that does not wait would show.
TEST_F(CudaExhaustiveTest, LaunchesInARowSeeEachOthersResults) {
  constexpr int64_t kN = 3'000'001;
  constexpr int kLaunches = 6, kRounds = 20;
  RESERVE_OR_SKIP(Dtype::kFp16, kN, 7);
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  struct Case {
    Op op;
    bool unalike;
    int num_parts;  // segments that the tensors are cut into
    LaunchLimits limits;
  };
  const Case cases[] = {{Op::kForward, false, 1, {}},
                        {Op::kForward, true, 1, {}},
                        {Op::kForward, false, 40, {}},
                        {Op::kForward, true, 200, {}},
                        {Op::kBackward, false, 1, {}},
                        {Op::kBackward, true, 30, {}},
                        {Op::kBackward, false, 1, {.max_blocks = 32}}};
  for (const Case& c : cases) {
    Rewind();
    const Offsets offsets = c.unalike ? Offsets{{1, 2, 3}} : Offsets{};
    const Tensors<Dtype::kFp16> whole = Lay<Dtype::kFp16>(c.op, kN, Place::kInPlace, offsets);
    std::vector<Tensors<Dtype::kFp16>> parts;
    for (int64_t i = 0; i < c.num_parts; ++i) {
      const int64_t first = kN * i / c.num_parts;
      parts.push_back(whole);
      parts.back().num_elements = kN * (i + 1) / c.num_parts - first;
      for (uint16_t*& tensor : parts.back().of) tensor += tensor == nullptr ? 0 : first;
    }
    // In place, every launch takes the results of the one before. Returns what is last.
    const auto chain = [&](bool waits) {
      FillInputs(RandomInputs{16}, whole);
      EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
      for (int i = 0; i < kLaunches; ++i) {
        EXPECT_EQ(Launch<Dtype::kFp16>(c.op, parts, c.limits, stream), cudaSuccess);
        if (waits) EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
      }
      EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
      std::vector<uint16_t> last(kN);
      cudaMemcpy(last.data(), whole.of[3], kN * 2, cudaMemcpyDeviceToHost);
      return last;
    };
    const std::vector<uint16_t> expected = chain(true);
    for (int round = 0; round < kRounds; ++round) ASSERT_EQ(chain(false), expected) << round;
  }
  cudaStreamDestroy(stream);
}

// The largest example of the source kernel.
TEST_F(CudaExhaustiveTest, SevenAndAHalfBillionElementsAreRight) {
  const int64_t n = int64_t{64} * 8192 * 14336;
  RESERVE_OR_SKIP(Dtype::kBf16, n, 3);
  Verify<Dtype::kBf16>(RandomInputs{14}, Op::kForward, n, Place::kOutOfPlace);
  Verify<Dtype::kBf16>(RandomInputs{15}, Op::kBackward, n, Place::kInPlace);
}

}  // namespace
}  // namespace swiglu::kernels
