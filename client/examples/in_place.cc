// SPDX-License-Identifier: Apache-2.0
//
// Example: results in the caller's own memory: forward into a buffer, then backward over its own
// inputs. `in_place HOST:PORT` ends with 0 if both are what a plain loop computes.
#include <cmath>
#include <cstdio>
#include <vector>

#include "swiglu/client.h"
#include "swiglu/typed_view.h"

using swiglu::client::Client;
using swiglu::client::MutableBytes;
using swiglu::client::View;

namespace {

bool IsNear(double found, double expected) {
  return std::fabs(found - expected) <= 1e-5 * (1 + std::fabs(expected));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: in_place HOST:PORT\n");
    return 2;
  }
  swiglu::client::TuneProcess();
  const auto client = Client::Create(argv[1]);
  absl::Status status = client.status();

  std::vector<float> dw(5000), e(5000), g(5000), h(5000);
  for (size_t i = 0; i < e.size(); ++i) {
    dw[i] = std::sin(0.23f * static_cast<float>(i));
    e[i] = 8 * std::sin(0.37f * static_cast<float>(i));
    g[i] = 2 * std::cos(0.11f * static_cast<float>(i));
  }
  // Kept for the check. A caller who wants to retry keeps them, too: after an error the outputs
  // hold anything, and here the outputs are the inputs.
  const std::vector<float> old_dw = dw, old_e = e, old_g = g;

  // The client copies a result once, from the connection's buffers to the memory given here.
  if (status.ok()) status = client->ForwardInto(View(e), View(g), MutableBytes(h));

  // An output may be the memory of an input, whole: h over dw, df over e and de over g.
  if (status.ok()) {
    status =
        client->BackwardInto(View(dw), View(e), View(g),
                             {.h = MutableBytes(dw), .df = MutableBytes(e), .de = MutableBytes(g)});
  }
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return 1;
  }

  for (size_t i = 0; i < e.size(); ++i) {
    const double sigmoid = 1 / (1 + std::exp(-double{old_e[i]}));
    const double f = old_e[i] * sigmoid;
    const double slope = sigmoid * (1 + old_e[i] * (1 - sigmoid));  // of SiLU at e
    if (!IsNear(h[i], f * old_g[i]) || !IsNear(dw[i], f * old_g[i]) ||
        !IsNear(e[i], old_dw[i] * f) || !IsNear(g[i], double{old_dw[i]} * old_g[i] * slope)) {
      std::fprintf(stderr, "wrong: element %zu: h %g, %g, df %g, de %g\n", i, h[i], dw[i], e[i],
                   g[i]);
      return 1;
    }
  }
  std::printf("in_place: %zu elements are right\n", e.size());
  return 0;
}
