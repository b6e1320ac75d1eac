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
#include "tests/kernels/cuda_runner.h"
#include "tests/kernels/golden.h"

namespace swiglu::kernels {
namespace {

// ---- What is expected ----

// The element type by its dtype.
template <Dtype kDtype>
using Element = std::conditional_t<kDtype == Dtype::kFp32, uint32_t, uint16_t>;

template <Dtype kDtype>
__device__ double Widen(uint32_t bits) {
  if constexpr (kDtype == Dtype::kFp32) return __uint_as_float(bits);
  if constexpr (kDtype == Dtype::kBf16) return __uint_as_float(bits << 16);
  float value;
  asm("{.reg .b16 h; cvt.u16.u32 h, %1; cvt.f32.f16 %0, h;}" : "=f"(value) : "r"(bits));
  return value;
}

// The pattern nearest to `value`, ties to even.
template <Dtype kDtype>
__device__ uint32_t Nearest(double value) {
  if constexpr (kDtype == Dtype::kFp32) return __float_as_uint(__double2float_rn(value));
  // To float32 toward zero, with a mark for what was cut off: then the second rounding is right.
  uint32_t bits = __float_as_uint(__double2float_rz(value));
  if (value == value && static_cast<double>(__uint_as_float(bits)) != value) bits |= 1;
  if constexpr (kDtype == Dtype::kBf16) {
    if (value != value) return 0x7FC0;
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
  }
  uint32_t half;
  asm("{.reg .b16 h; cvt.rn.f16.f32 h, %1; cvt.u32.u16 %0, h;}"
      : "=r"(half)
      : "f"(__uint_as_float(bits)));
  return half;
}

template <Dtype kDtype>
__device__ uint32_t Product(uint32_t a, uint32_t b) {
  return Nearest<kDtype>(Widen<kDtype>(a) * Widen<kDtype>(b));
}

__device__ float ReferenceSigmoid(float e) {
  float u, sigmoid;
  asm("ex2.approx.f32 %0, %1;" : "=f"(u) : "f"(__fmul_rn(0.0f - e, 1.4426950408889634f)));
  asm("div.full.f32 %0, %1, %2;" : "=f"(sigmoid) : "f"(1.0f), "f"(__fadd_rn(1.0f, u)));
  return sigmoid;
}

template <Dtype kDtype>
struct Expected {
  uint32_t h, df, de;
};

// `table` is f of every pattern; nullptr: f comes from the arithmetic.
template <Dtype kDtype>
__device__ Expected<kDtype> Expect(uint32_t dw, uint32_t e, uint32_t g, const uint16_t* table) {
  const auto e32 = static_cast<float>(Widen<kDtype>(e));
  const float se = ReferenceSigmoid(e32);
  const uint32_t f = table != nullptr ? table[e] : Nearest<kDtype>(__fmul_rn(se, e32));
  const auto dg32 = static_cast<float>(Widen<kDtype>(Product<kDtype>(dw, g)));
  const float de = __fmul_rn(__fmul_rn(dg32, se), __fmaf_rn(e32, __fsub_rn(1.0f, se), 1.0f));
  return {Product<kDtype>(f, g), Product<kDtype>(dw, f), Nearest<kDtype>(de)};
}

template <Dtype kDtype>
__device__ bool Same(uint32_t a, uint32_t b) {
  const double va = Widen<kDtype>(a), vb = Widen<kDtype>(b);
  return a == b || (va != va && vb != vb);
}

// ---- Inputs as functions of their index ----

// Random patterns: half of them any, half of moderate size.
struct RandomInputs {
  uint64_t seed;

  template <Dtype kDtype>
  __device__ uint32_t At(int tensor, int64_t i) const {
    uint64_t z = (seed + tensor) * 0x9E3779B97F4A7C15 + static_cast<uint64_t>(i);
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    z ^= z >> 31;
    const auto bits = static_cast<uint32_t>(z);
    const auto more = static_cast<uint32_t>(z >> 32);
    constexpr int kMantissaBits = kDtype == Dtype::kFp32 ? 23 : kDtype == Dtype::kBf16 ? 7 : 10;
    constexpr uint32_t kBias = kDtype == Dtype::kFp16 ? 15 : 127;
    constexpr uint32_t kSign = kDtype == Dtype::kFp32 ? 0x80000000u : 0x8000u;
    constexpr uint32_t kAll = kDtype == Dtype::kFp32 ? 0xFFFFFFFFu : 0xFFFFu;
    if (more % 2 == 0) return bits & kAll;
    return (bits & kSign) | (bits & ((1u << kMantissaBits) - 1)) |
           (kBias - 4 + more / 2 % 8) << kMantissaBits;
  }
};

// dw is 1, e and g are every pair of patterns, 2^26 of them from `first_e` on.
struct AllPairs {
  uint32_t first_e;
  uint32_t one;

  template <Dtype kDtype>
  __device__ uint32_t At(int tensor, int64_t i) const {
    if (tensor == 0) return one;
    return tensor == 1 ? first_e + static_cast<uint32_t>(i >> 16)
                       : static_cast<uint32_t>(i & 0xFFFF);
  }
};

// Every gate, for one pair of dw and g after another.
struct AllGates {
  const uint32_t* dw;
  const uint32_t* g;

  template <Dtype kDtype>
  __device__ uint32_t At(int tensor, int64_t i) const {
    if (tensor == 1) return static_cast<uint32_t>(i & 0xFFFF);
    return (tensor == 0 ? dw : g)[i >> 16];
  }
};

// Every FP32 gate, 2^26 of them from `first` on; dw and g are 1.
struct AllFp32Gates {
  uint32_t first;

  template <Dtype kDtype>
  __device__ uint32_t At(int tensor, int64_t i) const {
    return tensor == 1 ? first + static_cast<uint32_t>(i) : 0x3F800000u;
  }
};

template <Dtype kDtype, class Inputs>
__global__ void Fill(Inputs inputs, int tensor, Element<kDtype>* out, int64_t n) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride) {
    out[i] = static_cast<Element<kDtype>>(inputs.template At<kDtype>(tensor, i));
  }
}

// What a check found: how many elements differ, and the smallest index of one.
struct Findings {
  unsigned long long num_differing;
  unsigned long long first;
};

// Compares the outputs; df and de are nullptr for forward.
template <Dtype kDtype, class Inputs>
__global__ void Check(Inputs inputs, const Element<kDtype>* h, const Element<kDtype>* df,
                      const Element<kDtype>* de, int64_t n, const uint16_t* table,
                      Findings* findings) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride) {
    const auto expected =
        Expect<kDtype>(inputs.template At<kDtype>(0, i), inputs.template At<kDtype>(1, i),
                       inputs.template At<kDtype>(2, i), table);
    bool same = Same<kDtype>(h[i], expected.h);
    if (df != nullptr) same &= Same<kDtype>(df[i], expected.df) && Same<kDtype>(de[i], expected.de);
    if (same) continue;
    atomicAdd(&findings->num_differing, 1);
    atomicMin(&findings->first, static_cast<unsigned long long>(i));
  }
}

// ---- The cases ----

enum class Place { kInPlace, kOutOfPlace };

// Tensors dw, e, g and then h, df, de, so many elements past a 256-byte boundary.
struct Offsets {
  int64_t of[6] = {};
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

  // Memory for `num_tensors` of `n` elements with room for offsets; skips where there is not
  // enough.
  bool Reserve(Dtype dtype, int64_t n, int num_tensors) {
    tensor_bytes_ = (n * static_cast<int64_t>(ElementBytes(dtype)) + 255 + 256) / 256 * 256;
    arena_.reset();
    arena_ = AllocateOnDevice(static_cast<size_t>(tensor_bytes_ * num_tensors));
    return arena_ != nullptr;
  }

  // Tensor number `position` of the memory reserved, of FP16.
  uint16_t* At(int position) const { return Tensor<uint16_t>(position, 0); }

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

  // Computes n elements and checks every one. Tensors lie one behind the other in the arena.
  template <Dtype kDtype, class Inputs>
  void Verify(const Inputs& inputs, bool backward, int64_t n, Place place,
              const Offsets& offsets = {}) {
    using E = Element<kDtype>;
    // Forward has no dw: its tensors are e, g and h.
    const int first_input = backward ? 0 : 1;
    const int num_inputs = backward ? 3 : 2;
    E* tensors[6] = {};
    for (int k = 0; k < num_inputs; ++k) tensors[first_input + k] = Tensor<E>(k, offsets.of[k]);
    for (int k = 0; k < (backward ? 3 : 1); ++k) {
      tensors[3 + k] = place == Place::kInPlace ? tensors[first_input + k]
                                                : Tensor<E>(num_inputs + k, offsets.of[3 + k]);
    }
    for (int k = first_input; k < 3; ++k) {
      Fill<kDtype><<<kBlocks, kThreads>>>(inputs, k, tensors[k], n);
    }
    const ForwardSegment forward{tensors[1], tensors[2], tensors[3], n};
    const BackwardSegment all{tensors[0], tensors[1], tensors[2], tensors[3],
                              tensors[4], tensors[5], n};
    ASSERT_EQ(backward ? BackwardCuda(kDtype, {&all, 1}, {}, nullptr)
                       : ForwardCuda(kDtype, {&forward, 1}, {}, nullptr),
              cudaSuccess);
    const Findings none{0, ~0ull};
    cudaMemcpyAsync(findings_.get(), &none, sizeof(none), cudaMemcpyHostToDevice);
    Check<kDtype><<<kBlocks, kThreads>>>(inputs, tensors[3], tensors[4], tensors[5], n,
                                         Table(kDtype),
                                         reinterpret_cast<Findings*>(findings_.get()));
    Findings found{};
    ASSERT_EQ(cudaMemcpy(&found, findings_.get(), sizeof(found), cudaMemcpyDeviceToHost),
              cudaSuccess);
    num_checked_ += n;
    EXPECT_EQ(found.num_differing, 0u)
        << Name(kDtype) << (backward ? " backward, " : " forward, ") << n
        << " elements; the first that differs is " << found.first;
  }

  void TearDown() override {
    if (num_checked_ > 0) std::cout << "checked " << num_checked_ << " elements\n";
  }

 private:
  template <class E>
  E* Tensor(int position, int64_t offset) const {
    return reinterpret_cast<E*>(arena_.get() + position * tensor_bytes_) + offset;
  }

  std::shared_ptr<std::byte> arena_, findings_, tables_[2];
  int64_t tensor_bytes_ = 0;
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
    Verify<Dtype::kFp16>(AllPairs{e, 0x3C00}, false, int64_t{1} << 26, Place::kOutOfPlace);
  }
}

TEST_F(CudaExhaustiveTest, ForwardIsRightForEveryPairOfBf16) {
  RESERVE_OR_SKIP(Dtype::kBf16, int64_t{1} << 26, 3);
  for (uint32_t e = 0; e < 65536; e += 1024) {
    Verify<Dtype::kBf16>(AllPairs{e, 0x3F80}, false, int64_t{1} << 26, Place::kOutOfPlace);
  }
}

TEST_F(CudaExhaustiveTest, EveryFp32GateIsRight) {
  RESERVE_OR_SKIP(Dtype::kFp32, int64_t{1} << 26, 3);
  for (uint64_t e = 0; e < uint64_t{1} << 32; e += uint64_t{1} << 26) {
    Verify<Dtype::kFp32>(AllFp32Gates{static_cast<uint32_t>(e)}, true, int64_t{1} << 26,
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
    Verify<kDtype>(AllGates{dw, dw + num_pairs}, true, n, Place::kOutOfPlace);
    Verify<kDtype>(AllGates{dw, dw + num_pairs}, true, n, Place::kInPlace);
  };
  verify.operator()<Dtype::kFp16>();
  verify.operator()<Dtype::kBf16>();
}

TEST_F(CudaExhaustiveTest, EverySizeUpTo4100IsRight) {
  RESERVE_OR_SKIP(Dtype::kFp32, 8192, 6);
  for (int64_t n = 0; n <= 4100; ++n) {
    const Offsets odd{{n % 8, n % 8, n % 8, n % 8, n % 8, n % 8}};
    const Place place = n % 2 == 0 ? Place::kInPlace : Place::kOutOfPlace;
    Verify<Dtype::kFp16>(RandomInputs{1}, false, n, place, odd);
    Verify<Dtype::kBf16>(RandomInputs{2}, true, n, place, odd);
    Verify<Dtype::kFp32>(RandomInputs{3}, n % 4 < 2, n, place, odd);
  }
}

// Every offset of each pointer of forward; of backward's six, every pair of them and random ones.
TEST_F(CudaExhaustiveTest, EveryAlignmentIsRight) {
  RESERVE_OR_SKIP(Dtype::kFp32, 8192, 6);
  constexpr int64_t kN = 5003;
  for (int64_t i = 0; i < 512; ++i) {
    const int64_t a = i % 8, b = i / 8 % 8, c = i / 64;
    Verify<Dtype::kFp16>(RandomInputs{4}, false, kN, Place::kOutOfPlace, {{a, b, 0, c}});
    Verify<Dtype::kBf16>(RandomInputs{5}, false, kN, Place::kOutOfPlace, {{a, b, 0, c}});
    Verify<Dtype::kFp16>(RandomInputs{6}, true, kN, Place::kInPlace, {{a, b, c}});
    Verify<Dtype::kBf16>(RandomInputs{7}, true, kN, Place::kOutOfPlace, {{a, b, c, c, a, b}});
    Verify<Dtype::kFp32>(RandomInputs{8}, true, kN, Place::kOutOfPlace,
                         {{a % 4, b % 4, c % 4, b % 4, a % 4, c % 4}});
  }
  std::mt19937 random(9);
  for (int i = 0; i < 2000; ++i) {
    Offsets offsets;
    for (int64_t& offset : offsets.of) offset = random() % 8;
    Verify<Dtype::kFp16>(RandomInputs{10}, true, kN, Place::kOutOfPlace, offsets);
  }
}

// Around the borders at which 32-bit counts of elements and of bytes would wrap.
TEST_F(CudaExhaustiveTest, SizesAroundThe32BitBordersAreRight) {
  const int64_t border = int64_t{1} << 31;
  RESERVE_OR_SKIP(Dtype::kFp16, border + 70001, 3);
  for (const int64_t n : {border - 4097, border - 4096, border - 4095, border - 1, border,
                          border + 1, border + 4096, border + 70001}) {
    const Offsets odd{{3, 3, 3}}, unalike{{1, 4, 6}};
    Verify<Dtype::kFp16>(RandomInputs{11}, false, n, Place::kInPlace, odd);
    Verify<Dtype::kBf16>(RandomInputs{12}, true, n, Place::kInPlace, unalike);
  }
  const int64_t fp32_border = int64_t{1} << 30;  // 2^32 bytes
  for (const int64_t n : {fp32_border - 1, fp32_border, fp32_border + 1}) {
    Verify<Dtype::kFp32>(RandomInputs{13}, true, n, Place::kInPlace);
  }
}

// Each launch reads what the one before it wrote. Kernels may start before the one ahead of them is
// done, so this is where one that does not wait would show.
TEST_F(CudaExhaustiveTest, LaunchesInARowSeeEachOthersResults) {
  constexpr int64_t kN = 3'000'001;
  constexpr int kLaunches = 6;
  RESERVE_OR_SKIP(Dtype::kFp16, kN, 4);
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
  // e, h and e again: each forward's result is the next one's gate. Returns the last.
  const auto chain = [&](bool waits) {
    Fill<Dtype::kFp16><<<kBlocks, kThreads, 0, stream>>>(RandomInputs{16}, 1, At(0), kN);
    Fill<Dtype::kFp16><<<kBlocks, kThreads, 0, stream>>>(RandomInputs{17}, 2, At(1), kN);
    for (int i = 0; i < kLaunches; ++i) {
      const ForwardSegment segment{i == 0 ? At(0) : At(2 + (i + 1) % 2), At(1), At(2 + i % 2), kN};
      EXPECT_EQ(ForwardCuda(Dtype::kFp16, {&segment, 1}, {}, stream), cudaSuccess);
      if (waits) EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    }
    std::vector<uint16_t> last(kN);
    cudaMemcpyAsync(last.data(), At(2 + (kLaunches - 1) % 2), kN * 2, cudaMemcpyDeviceToHost,
                    stream);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    return last;
  };
  const std::vector<uint16_t> expected = chain(true);
  for (int round = 0; round < 50; ++round) ASSERT_EQ(chain(false), expected) << round;
  cudaStreamDestroy(stream);
}

// The largest example of the source kernel.
TEST_F(CudaExhaustiveTest, SevenAndAHalfBillionElementsAreRight) {
  const int64_t n = int64_t{64} * 8192 * 14336;
  RESERVE_OR_SKIP(Dtype::kBf16, n, 3);
  Verify<Dtype::kBf16>(RandomInputs{14}, false, n, Place::kOutOfPlace);
  Verify<Dtype::kBf16>(RandomInputs{15}, true, n, Place::kInPlace);
}

}  // namespace
}  // namespace swiglu::kernels
