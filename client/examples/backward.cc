// SPDX-License-Identifier: Apache-2.0
//
// Example: backward, the gradients of SwiGLU's two inputs, on a server. `backward HOST:PORT` ends
// with 0 if the answer is what a plain loop computes.
#include <cmath>
#include <cstdio>
#include <vector>

#include "swiglu/client.h"
#include "swiglu/typed_view.h"

using swiglu::client::Client;
using swiglu::client::Elements;
using swiglu::client::View;

namespace {

constexpr size_t kNumElements = 3 * 1000;

bool IsNear(double found, double expected) {
  return std::fabs(found - expected) <= 1e-5 * (1 + std::fabs(expected));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: backward HOST:PORT\n");
    return 2;
  }
  swiglu::client::TuneProcess();
  const auto client = Client::Create(argv[1]);
  if (!client.ok()) {
    std::fprintf(stderr, "%s\n", client.status().ToString().c_str());
    return 1;
  }

  // dw is the gradient that reaches h. e is the gate and g the up projection, as in forward.
  std::vector<float> dw(kNumElements), e(kNumElements), g(kNumElements);
  for (size_t i = 0; i < kNumElements; ++i) {
    dw[i] = std::sin(0.23f * static_cast<float>(i));
    e[i] = 8 * std::sin(0.37f * static_cast<float>(i));
    g[i] = 2 * std::cos(0.11f * static_cast<float>(i));
  }
  const auto result = client->Backward(View(dw, {3, 1000}), View(e, {3, 1000}), View(g, {3, 1000}));
  if (!result.ok()) {
    std::fprintf(stderr, "%s\n", result.status().ToString().c_str());
    return 1;
  }

  // df is the gradient of g, and de is the gradient of e: those are the reference kernel's names.
  const absl::Span<const float> h = Elements<float>(result->h).value();
  const absl::Span<const float> df = Elements<float>(result->df).value();
  const absl::Span<const float> de = Elements<float>(result->de).value();
  for (size_t i = 0; i < kNumElements; ++i) {
    const double sigmoid = 1 / (1 + std::exp(-double{e[i]}));
    const double f = e[i] * sigmoid;
    const double slope = sigmoid * (1 + e[i] * (1 - sigmoid));  // of SiLU at e
    if (!IsNear(h[i], f * g[i]) || !IsNear(df[i], dw[i] * f) ||
        !IsNear(de[i], double{dw[i]} * g[i] * slope)) {
      std::fprintf(stderr, "wrong: element %zu: h %g, df %g, de %g\n", i, h[i], df[i], de[i]);
      return 1;
    }
  }
  std::printf("backward: %zu elements are right\n", kNumElements);
  return 0;
}
