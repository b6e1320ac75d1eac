// SPDX-License-Identifier: Apache-2.0
//
// The CPU launchers. Everything between HWY_BEFORE_NAMESPACE and HWY_AFTER_NAMESPACE is compiled
// once per instruction set; the part below picks the best one that the machine has.
#include "swiglu/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/swiglu_cpu.cc"
#include "hwy/foreach_target.h"
// The order matters: what follows is per instruction set.
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/check_segments.h"
#include "kernels/cpu/swiglu-inl.h"

HWY_BEFORE_NAMESPACE();
namespace swiglu::internal {
namespace HWY_NAMESPACE {

// Elements of a pair of vectors.
constexpr int64_t kMaxPair = 2 * hn::MaxLanes(hn::ScalableTag<float>());

int64_t PairSize() { return 2 * static_cast<int64_t>(hn::Lanes(hn::ScalableTag<float>())); }

template <class T>
void Compute(const ForwardSegment& segment) {
  using Lane = typename T::Lane;
  const auto* e = static_cast<const Lane*>(segment.e);
  const auto* g = static_cast<const Lane*>(segment.g);
  auto* h = static_cast<Lane*>(segment.h);
  const int64_t pair = PairSize();

  int64_t i = 0;
  for (; i + pair <= segment.num_elements; i += pair) {
    ForwardPair<T>(e + i, g + i, h + i);
  }
  // The rest goes through whole pairs of our own: nothing is touched past the end.
  const size_t rest_bytes = static_cast<size_t>(segment.num_elements - i) * sizeof(Lane);
  if (rest_bytes == 0) return;
  Lane rest_e[kMaxPair] = {}, rest_g[kMaxPair] = {};
  std::memcpy(rest_e, e + i, rest_bytes);
  std::memcpy(rest_g, g + i, rest_bytes);
  ForwardPair<T>(rest_e, rest_g, rest_e);
  std::memcpy(h + i, rest_e, rest_bytes);
}

template <class T>
void Compute(const BackwardSegment& segment) {
  using Lane = typename T::Lane;
  const auto* dw = static_cast<const Lane*>(segment.dw);
  const auto* e = static_cast<const Lane*>(segment.e);
  const auto* g = static_cast<const Lane*>(segment.g);
  auto* h = static_cast<Lane*>(segment.h);
  auto* df = static_cast<Lane*>(segment.df);
  auto* de = static_cast<Lane*>(segment.de);
  const int64_t pair = PairSize();

  int64_t i = 0;
  for (; i + pair <= segment.num_elements; i += pair) {
    BackwardPair<T>(dw + i, e + i, g + i, h + i, df + i, de + i);
  }
  const size_t rest_bytes = static_cast<size_t>(segment.num_elements - i) * sizeof(Lane);
  if (rest_bytes == 0) return;
  Lane rest_dw[kMaxPair] = {}, rest_e[kMaxPair] = {}, rest_g[kMaxPair] = {};
  std::memcpy(rest_dw, dw + i, rest_bytes);
  std::memcpy(rest_e, e + i, rest_bytes);
  std::memcpy(rest_g, g + i, rest_bytes);
  BackwardPair<T>(rest_dw, rest_e, rest_g, rest_dw, rest_e, rest_g);
  std::memcpy(h + i, rest_dw, rest_bytes);
  std::memcpy(df + i, rest_e, rest_bytes);
  std::memcpy(de + i, rest_g, rest_bytes);
}

template <class Segment>
void ComputeAll(Dtype dtype, std::span<const Segment> segments) {
  for (const Segment& segment : segments) {
    switch (dtype) {
      case Dtype::kFp16:
        Compute<Fp16>(segment);
        break;
      case Dtype::kBf16:
        Compute<Bf16>(segment);
        break;
      case Dtype::kFp32:
        Compute<Fp32>(segment);
        break;
    }
  }
}

void Forward(Dtype dtype, std::span<const ForwardSegment> segments) { ComputeAll(dtype, segments); }

void Backward(Dtype dtype, std::span<const BackwardSegment> segments) {
  ComputeAll(dtype, segments);
}

const char* TargetName() { return hwy::TargetName(HWY_TARGET); }

}  // namespace HWY_NAMESPACE
}  // namespace swiglu::internal
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace swiglu {
namespace internal {
namespace {

HWY_EXPORT(Forward);
HWY_EXPORT(Backward);
HWY_EXPORT(TargetName);

// HWY_DYNAMIC_DISPATCH takes a bare name, so these are its only users.
void Dispatch(Dtype dtype, std::span<const ForwardSegment> segments) {
  HWY_DYNAMIC_DISPATCH(Forward)(dtype, segments);
}
void Dispatch(Dtype dtype, std::span<const BackwardSegment> segments) {
  HWY_DYNAMIC_DISPATCH(Backward)(dtype, segments);
}
const char* DispatchTargetName() { return HWY_DYNAMIC_DISPATCH(TargetName)(); }

template <class Segment>
KernelStatus CheckAndDispatch(Dtype dtype, std::span<const Segment> segments) {
  const KernelStatus status = CheckSegments(dtype, segments);
  if (status == KernelStatus::kOk) Dispatch(dtype, segments);
  return status;
}

}  // namespace
}  // namespace internal

KernelStatus ForwardCpu(Dtype dtype, std::span<const ForwardSegment> segments) {
  return internal::CheckAndDispatch(dtype, segments);
}

KernelStatus BackwardCpu(Dtype dtype, std::span<const BackwardSegment> segments) {
  return internal::CheckAndDispatch(dtype, segments);
}

const char* CpuTarget() { return internal::DispatchTargetName(); }

}  // namespace swiglu
#endif  // HWY_ONCE
