// SPDX-License-Identifier: Apache-2.0
//
// Example: many calls under way from one thread, by futures, on BF16 tensors. `futures HOST:PORT`
// ends with 0 if every answer is what a plain loop computes.
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "swiglu/client.h"
#include "swiglu/typed_view.h"

using swiglu::client::Client;
using swiglu::client::Future;
using swiglu::client::MutableBytes;
using swiglu::client::View;

// In the place of the BF16 type of a library. It rounds towards 0.
struct Bf16 {
  static Bf16 From(float value) {
    return {static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16)};
  }
  float ToFloat() const { return std::bit_cast<float>(uint32_t{bits} << 16); }

  uint16_t bits = 0;
};

// What a program says once for such a type. Views of it take no copy.
template <>
struct swiglu::client::DtypeOf<Bf16> : swiglu::client::Bf16Elements {};

namespace {

constexpr size_t kNumCalls = 256;
constexpr size_t kNumElements = 512;  // of a call

// The elements of call `i`.
template <typename T>
std::span<T> Row(std::vector<T>& tensor, size_t i) {
  return std::span(tensor).subspan(i * kNumElements, kNumElements);
}

bool IsRight(Bf16 h, Bf16 e, Bf16 g) {
  const double expected = e.ToFloat() / (1 + std::exp(-double{e.ToFloat()})) * g.ToFloat();
  return std::fabs(h.ToFloat() - expected) <= 0.01 * std::fabs(expected);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: futures HOST:PORT\n");
    return 2;
  }
  swiglu::client::TuneProcess();
  const auto client = Client::Create(argv[1]);
  if (!client.ok()) {
    std::fprintf(stderr, "%s\n", client.status().ToString().c_str());
    return 1;
  }

  // The memory of a call must live until its future is ready. So the futures come after it here,
  // and are destroyed before it.
  std::vector<Bf16> e(kNumCalls * kNumElements), g(e.size()), h(e.size());
  for (size_t i = 0; i < e.size(); ++i) {
    e[i] = Bf16::From(8 * std::sin(0.37f * static_cast<float>(i)));
    g[i] = Bf16::From(2 * std::cos(0.11f * static_cast<float>(i)));
  }

  // None of these calls waits for the server. The client joins small calls that come while others
  // are on their way, so that a few messages carry all of them.
  std::vector<Future<absl::Status>> futures;
  for (size_t i = 0; i < kNumCalls; ++i) {
    futures.push_back(
        client->ForwardIntoAsync(View(Row(e, i)), View(Row(g, i)), MutableBytes(Row(h, i))));
  }

  // A call that is not needed any more may be cancelled. Its future becomes ready soon, with
  // CANCELLED, or with the result if that was there or on its way.
  futures.back().Cancel();
  const absl::Status last = futures.back().Get();
  futures.pop_back();
  if (!last.ok() && !absl::IsCancelled(last)) {
    std::fprintf(stderr, "%s\n", last.ToString().c_str());
    return 1;
  }

  for (size_t i = 0; i < futures.size(); ++i) {
    const absl::Status status = futures[i].Get();
    if (!status.ok()) {
      std::fprintf(stderr, "call %zu: %s\n", i, status.ToString().c_str());
      return 1;
    }
  }
  for (size_t i = 0; i < futures.size() * kNumElements; ++i) {
    if (!IsRight(h[i], e[i], g[i])) {
      std::fprintf(stderr, "wrong: h[%zu] is %g\n", i, h[i].ToFloat());
      return 1;
    }
  }
  std::printf("futures: %zu calls are right\n", futures.size());
  return 0;
}
