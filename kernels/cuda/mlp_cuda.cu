// SPDX-License-Identifier: Apache-2.0
//
// The launchers of a whole MLP: checks, parts, and the products of each part.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <initializer_list>

#include "kernels/cuda/mlp_launch.cuh"
#include "kernels/cuda/mlp_plan.h"
#include "swiglu/cuda_mlp.h"
#include "swiglu/dtype.h"
#include "swiglu/mlp.h"

namespace swiglu {
namespace internal {
namespace {

// ---- Checks ----

bool IsMlpSize(int64_t size) { return size > 0 && size <= kMaxMlpSize && size % kMlpSizeStep == 0; }

bool AreAlignedOrNull(std::initializer_list<const void*> pointers) {
  return std::all_of(pointers.begin(), pointers.end(), [](const void* pointer) {
    return reinterpret_cast<uintptr_t>(pointer) % kCudaMlpAlignment == 0;
  });
}

bool AreAligned(std::initializer_list<const void*> pointers) {
  return AreAlignedOrNull(pointers) &&
         std::find(pointers.begin(), pointers.end(), nullptr) == pointers.end();
}

bool AreGood(const CudaMlpWeights& weights) {
  return (weights.dtype == Dtype::kFp16 || weights.dtype == Dtype::kBf16) &&
         IsMlpSize(weights.hidden) && IsMlpSize(weights.intermediate);
}

bool IsGood(int64_t num_tokens, MlpPath path) {
  return num_tokens >= 0 && num_tokens <= kMaxMlpTokens &&
         (path == MlpPath::kAuto || path == MlpPath::kMma || path == MlpPath::kWgmma);
}

bool AreGood(const MlpWeightGradients& gradients) {
  return AreAlignedOrNull({gradients.gate, gradients.up, gradients.down}) &&
         (gradients.sums == MlpSums::kBegin || gradients.sums == MlpSums::kContinue);
}

// ---- The device ----

// Asks CUDA once for each device.
cudaError_t GetDevice(MlpDevice& device) {
  static std::array<std::atomic<uint64_t>, 64> known{};  // processors, capability; or 0
  int number = 0;
  cudaError_t error = cudaGetDevice(&number);
  if (error != cudaSuccess) return error;
  const bool is_cached = number < static_cast<int>(known.size());
  uint64_t packed = is_cached ? known[number].load(std::memory_order_relaxed) : 0;
  if (packed == 0) {
    int major = 0, processors = 0;
    error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, number);
    if (error != cudaSuccess) return error;
    error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, number);
    if (error != cudaSuccess) return error;
    packed = static_cast<uint64_t>(processors) << 32 | static_cast<uint32_t>(major);
    if (is_cached) known[number].store(packed, std::memory_order_relaxed);
  }
  device = {static_cast<int>(packed & 0xFFFFFFFFu), static_cast<int>(packed >> 32)};
  return cudaSuccess;
}

// ---- Products ----

cudaError_t Launch(Dtype dtype, const Product& product, MlpPath path, const MlpDevice& device,
                   cudaStream_t stream) {
  if (path == MlpPath::kMma || !HasWgmma(device)) {
    return LaunchMma(dtype, product, MmaTile(product, device), device, stream);
  }
  const TileSize tile = WgmmaTile(product, device);
  return dtype == Dtype::kFp16 ? LaunchWgmma<Dtype::kFp16>(product, tile, device, stream)
                               : LaunchWgmma<Dtype::kBf16>(product, tile, device, stream);
}

cudaError_t Launch(Dtype dtype, const GradientProduct& product, MlpPath path,
                   const MlpDevice& device, cudaStream_t stream) {
  return path != MlpPath::kMma && HasWgmma(device)
             ? LaunchGradientWgmma(dtype, product, stream)
             : LaunchGradientMma(dtype, product, device, stream);
}

const uint16_t* Elements(const void* data) { return static_cast<const uint16_t*>(data); }
uint16_t* Elements(void* data) { return static_cast<uint16_t*>(data); }

// e and g from x, and what `finish` makes of them.
Product GateUp(const CudaMlpWeights& weights, const uint16_t* x, int num_tokens, Finish finish) {
  Product product{};
  product.weights = Elements(weights.gate_up);
  product.tokens[0] = x;
  product.num_tokens = num_tokens;
  product.num_outputs = static_cast<int>(2 * weights.intermediate);
  product.depth = static_cast<int>(weights.hidden);
  product.finish = finish;
  return product;
}

// y from h.
Product Down(const CudaMlpWeights& weights, const uint16_t* h, uint16_t* y, int num_tokens) {
  Product product{};
  product.weights = Elements(weights.down);
  product.tokens[0] = h;
  product.out[0] = y;
  product.num_tokens = num_tokens;
  product.num_outputs = static_cast<int>(weights.hidden);
  product.depth = static_cast<int>(weights.intermediate);
  product.finish = Finish::kStore;
  return product;
}

// dw from dy.
Product DownGradient(const CudaMlpWeights& weights, const uint16_t* dy, uint16_t* dw,
                     int num_tokens) {
  Product product{};
  product.weights = Elements(weights.down);
  product.tokens[0] = dy;
  product.out[0] = dw;
  product.num_tokens = num_tokens;
  product.num_outputs = static_cast<int>(weights.intermediate);
  product.depth = static_cast<int>(weights.hidden);
  product.layout = WeightsLayout::kDepthMajor;
  product.finish = Finish::kStore;
  return product;
}

// dx from df and de.
Product GateUpGradient(const CudaMlpWeights& weights, const uint16_t* df, const uint16_t* de,
                       uint16_t* dx, int num_tokens) {
  Product product{};
  product.weights = Elements(weights.gate_up);
  product.tokens[0] = df;
  product.tokens[1] = de;
  product.out[0] = dx;
  product.num_tokens = num_tokens;
  product.num_outputs = static_cast<int>(weights.hidden);
  product.depth = static_cast<int>(weights.intermediate);
  product.layout = WeightsLayout::kDepthMajor;
  product.is_interleaved = true;
  product.finish = Finish::kStoreSum;
  return product;
}

// Calls function(first token, number of tokens) for each part, until one fails.
template <class Function>
cudaError_t ForEachPart(int64_t num_tokens, const Function& function) {
  const int64_t part = PartTokens(num_tokens);
  for (int64_t first = 0; first < num_tokens; first += part) {
    const cudaError_t error = function(first, static_cast<int>(std::min(part, num_tokens - first)));
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

// ---- Backward ----

// Enqueues the gradients of no tokens: zeros, or what is there.
cudaError_t LaunchNoTokens(const CudaMlpWeights& weights, const MlpWeightGradients& gradients,
                           cudaStream_t stream) {
  if (gradients.sums == MlpSums::kContinue) return cudaSuccess;
  const auto bytes = static_cast<size_t>(weights.hidden * weights.intermediate) * sizeof(float);
  for (float* const gradient : {gradients.gate, gradients.up, gradients.down}) {
    if (gradient == nullptr) continue;
    const cudaError_t error = cudaMemsetAsync(gradient, 0, bytes, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

// Enqueues the kernels of one call.
class Backward {
 public:
  Backward(const CudaMlpWeights& weights, const CudaMlpBackward& call, MlpPath path,
           const MlpDevice& device, cudaStream_t stream)
      : weights_(weights), call_(call), path_(path), device_(device), stream_(stream) {
    const int64_t buffer = std::min(call.num_tokens, kMaxPartTokens) * weights.intermediate;
    df_ = Elements(call.workspace);
    dw_then_de_ = df_ + buffer;
    h_ = call.gradients.down == nullptr ? nullptr : dw_then_de_ + buffer;
  }

  cudaError_t LaunchPart(int64_t first_token, int num_tokens) const {
    const int64_t at = first_token * weights_.hidden;
    cudaError_t error = LaunchHidden(at, num_tokens);
    if (error != cudaSuccess) return error;
    if (call_.dx != nullptr) {
      error = LaunchProduct(
          GateUpGradient(weights_, df_, dw_then_de_, Elements(call_.dx) + at, num_tokens));
      if (error != cudaSuccess) return error;
    }
    const MlpSums first = first_token == 0 ? call_.gradients.sums : MlpSums::kContinue;
    return LaunchGradients(at, num_tokens, first);
  }

 private:
  // df, de and h. `at` is the part's first element of x and dy.
  cudaError_t LaunchHidden(int64_t at, int num_tokens) const {
    const uint16_t* const x = Elements(call_.x) + at;
    if (call_.dx == nullptr && call_.gradients.gate == nullptr && call_.gradients.up == nullptr) {
      // dWd alone needs only h.
      Product gate_up = GateUp(weights_, x, num_tokens, Finish::kSwiglu);
      gate_up.out[0] = h_;
      return LaunchProduct(gate_up);
    }
    const cudaError_t error =
        LaunchProduct(DownGradient(weights_, Elements(call_.dy) + at, dw_then_de_, num_tokens));
    if (error != cudaSuccess) return error;
    Product gate_up = GateUp(weights_, x, num_tokens, Finish::kSwigluBackward);
    gate_up.dw = dw_then_de_;
    gate_up.out[0] = df_;
    gate_up.out[1] = dw_then_de_;
    gate_up.out[2] = h_;
    return LaunchProduct(gate_up);
  }

  cudaError_t LaunchGradients(int64_t at, int num_tokens, MlpSums first) const {
    const uint16_t *const x = Elements(call_.x) + at, *const dy = Elements(call_.dy) + at;
    const auto hidden = static_cast<int>(weights_.hidden);
    const auto intermediate = static_cast<int>(weights_.intermediate);
    const GradientProduct products[] = {
        {dy, h_, call_.gradients.down, num_tokens, hidden, intermediate, first},
        {dw_then_de_, x, call_.gradients.gate, num_tokens, intermediate, hidden, first},
        {df_, x, call_.gradients.up, num_tokens, intermediate, hidden, first},
    };
    for (const GradientProduct& product : products) {
      if (product.sums == nullptr) continue;
      const cudaError_t error = LaunchProduct(product);
      if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
  }

  template <class AnyProduct>
  cudaError_t LaunchProduct(const AnyProduct& product) const {
    return Launch(weights_.dtype, product, path_, device_, stream_);
  }

  const CudaMlpWeights& weights_;
  const CudaMlpBackward& call_;
  const MlpPath path_;
  const MlpDevice& device_;
  const cudaStream_t stream_;
  // In the workspace, each [tokens of a part][I]. `h_` is null if it is not needed.
  uint16_t *df_, *dw_then_de_, *h_;
};

// The device, if it has the path.
cudaError_t GetDeviceFor(MlpPath path, MlpDevice& device) {
  if (const cudaError_t error = GetDevice(device); error != cudaSuccess) return error;
  return path == MlpPath::kWgmma && !HasWgmma(device) ? cudaErrorNotSupported : cudaSuccess;
}

}  // namespace
}  // namespace internal

cudaError_t CopyGateUpCuda(const MlpRows& rows, void* gate_up, cudaStream_t stream) {
  constexpr int64_t kGroup = 8;
  if (!internal::IsMlpSize(rows.hidden) || rows.first_row < 0 || rows.first_row % kGroup != 0 ||
      rows.num_rows < 0 || rows.num_rows % kGroup != 0) {
    return cudaErrorInvalidValue;
  }
  if (rows.num_rows == 0) return cudaSuccess;
  if (rows.data == nullptr || gate_up == nullptr) return cudaErrorInvalidValue;
  // Eight rows are one row of a two-dimensional copy, of which every second one is left out.
  const auto group_bytes = static_cast<size_t>(kGroup * rows.hidden * 2);
  const int64_t first_group = rows.first_row / kGroup * 2 + (rows.matrix == MlpMatrix::kUp ? 1 : 0);
  std::byte* const to =
      static_cast<std::byte*>(gate_up) + static_cast<size_t>(first_group) * group_bytes;
  return cudaMemcpy2DAsync(to, 2 * group_bytes, rows.data, group_bytes, group_bytes,
                           static_cast<size_t>(rows.num_rows / kGroup), cudaMemcpyDefault, stream);
}

int64_t MlpForwardWorkspaceBytes(const CudaMlpWeights& weights, int64_t num_tokens) {
  return std::min(num_tokens, internal::kMaxPartTokens) * weights.intermediate * 2;  // h
}

int64_t MlpBackwardWorkspaceBytes(const CudaMlpWeights& weights, int64_t num_tokens) {
  return 2 * MlpForwardWorkspaceBytes(weights, num_tokens);  // df; dw, then de
}

int64_t MlpGradientsWorkspaceBytes(const CudaMlpWeights& weights, int64_t num_tokens) {
  return 3 * MlpForwardWorkspaceBytes(weights, num_tokens);  // df; dw, then de; h
}

cudaError_t MlpForwardCuda(const CudaMlpWeights& weights, const CudaMlpForward& call, MlpPath path,
                           cudaStream_t stream) {
  using namespace internal;
  if (!AreGood(weights) || !IsGood(call.num_tokens, path)) return cudaErrorInvalidValue;
  if (call.num_tokens == 0) return cudaSuccess;
  if (!AreAligned({weights.gate_up, weights.down, call.x, call.y, call.workspace}) ||
      call.workspace_bytes < MlpForwardWorkspaceBytes(weights, call.num_tokens)) {
    return cudaErrorInvalidValue;
  }
  MlpDevice device;
  if (const cudaError_t error = GetDeviceFor(path, device); error != cudaSuccess) return error;

  uint16_t* const h = Elements(call.workspace);
  return ForEachPart(call.num_tokens, [&](int64_t first, int num_tokens) {
    const int64_t at = first * weights.hidden;
    Product gate_up = GateUp(weights, Elements(call.x) + at, num_tokens, Finish::kSwiglu);
    gate_up.out[0] = h;
    const cudaError_t error = Launch(weights.dtype, gate_up, path, device, stream);
    if (error != cudaSuccess) return error;
    return Launch(weights.dtype, Down(weights, h, Elements(call.y) + at, num_tokens), path, device,
                  stream);
  });
}

cudaError_t MlpBackwardCuda(const CudaMlpWeights& weights, const CudaMlpBackward& call,
                            MlpPath path, cudaStream_t stream) {
  using namespace internal;
  if (!AreGood(weights) || !IsGood(call.num_tokens, path) || !AreGood(call.gradients)) {
    return cudaErrorInvalidValue;
  }
  if (call.num_tokens == 0) return LaunchNoTokens(weights, call.gradients, stream);
  const int64_t workspace_bytes = call.gradients.down == nullptr
                                      ? MlpBackwardWorkspaceBytes(weights, call.num_tokens)
                                      : MlpGradientsWorkspaceBytes(weights, call.num_tokens);
  if ((call.dx == nullptr && !call.gradients.has_any()) || !AreAlignedOrNull({call.dx}) ||
      !AreAligned({weights.gate_up, weights.down, call.x, call.dy, call.workspace}) ||
      call.workspace_bytes < workspace_bytes) {
    return cudaErrorInvalidValue;
  }
  MlpDevice device;
  if (const cudaError_t error = GetDeviceFor(path, device); error != cudaSuccess) return error;

  const Backward backward(weights, call, path, device, stream);
  return ForEachPart(call.num_tokens, [&](int64_t first, int num_tokens) {
    return backward.LaunchPart(first, num_tokens);
  });
}

}  // namespace swiglu
