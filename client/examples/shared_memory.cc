// SPDX-License-Identifier: Apache-2.0
//
// Example: tensors in memory that the server on the same host shares, so that none of their bytes
// travel: forward in a region, then backward over its own inputs. `shared_memory HOST:PORT` ends
// with 0 if both are what a plain loop computes. The server needs --system_shared_memory=on.
#include "swiglu/shared_memory.h"

#include <cmath>
#include <cstdio>

#include "swiglu/client.h"

using swiglu::client::Client;
using swiglu::client::Dtype;
using swiglu::client::InputTensor;
using swiglu::client::RegionPart;
using swiglu::client::SystemRegion;

namespace {

constexpr int64_t kNumElements = 4 * 1000;
constexpr int64_t kBytes = kNumElements * 4;

// What element i of each input is at first.
float Dw(int64_t i) { return std::sin(0.23f * static_cast<float>(i)); }
float E(int64_t i) { return 8 * std::sin(0.37f * static_cast<float>(i)); }
float G(int64_t i) { return 2 * std::cos(0.11f * static_cast<float>(i)); }

bool IsNear(double found, double expected) {
  return std::fabs(found - expected) <= 1e-5 * (1 + std::fabs(expected));
}

// Forward, backward and the comparison. The region holds dw, e, g and h, one after the other.
absl::Status Compute(const Client& client, SystemRegion& region) {
  // The memory is ours as any other, while no call uses it.
  auto* const dw = reinterpret_cast<float*>(region.bytes().data());
  float* const e = dw + kNumElements;
  float* const g = e + kNumElements;
  const float* const h = g + kNumElements;
  for (int64_t i = 0; i < kNumElements; ++i) {
    dw[i] = Dw(i);
    e[i] = E(i);
    g[i] = G(i);
  }
  const auto part = [&](int64_t k) { return region.Part(k * kBytes, kBytes); };
  const auto input = [&](int64_t k) { return InputTensor(Dtype::kFp32, {4, 1000}, part(k)); };

  absl::Status status = client.ForwardInto(input(1), input(2), part(3));
  // An output may be an input, whole: h over dw, df over e and de over g.
  if (status.ok()) {
    status = client.BackwardInto(input(0), input(1), input(2),
                                 {.h = part(0), .df = part(1), .de = part(2)});
  }
  if (!status.ok()) return status;

  for (int64_t i = 0; i < kNumElements; ++i) {
    const double sigmoid = 1 / (1 + std::exp(-double{E(i)}));
    const double f = E(i) * sigmoid;
    const double slope = sigmoid * (1 + E(i) * (1 - sigmoid));  // of SiLU at e
    if (!IsNear(h[i], f * G(i)) || !IsNear(dw[i], f * G(i)) || !IsNear(e[i], Dw(i) * f) ||
        !IsNear(g[i], double{Dw(i)} * G(i) * slope)) {
      std::fprintf(stderr, "wrong: element %lld: h %g, %g, df %g, de %g\n",
                   static_cast<long long>(i), h[i], dw[i], e[i], g[i]);
      return absl::InternalError("another value");
    }
  }
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: shared_memory HOST:PORT\n");
    return 2;
  }
  swiglu::client::TuneProcess();
  const auto client = Client::Create(argv[1]);
  absl::Status status = client.status();

  // Made once and used for many calls: the server maps it, and on CUDA pins it, when it is made.
  // The destructor gives it back.
  if (status.ok()) {
    absl::StatusOr<SystemRegion> region = SystemRegion::Create(*client, 4 * kBytes);
    status = region.ok() ? Compute(*client, *region) : region.status();
  }
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return 1;
  }
  std::printf("shared_memory: %d elements are right\n", static_cast<int>(kNumElements));
  return 0;
}
