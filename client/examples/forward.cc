// SPDX-License-Identifier: Apache-2.0
//
// Example: forward, h = SiLU(e) * g, on a server. `forward HOST:PORT` ends with 0 if the answer is
// what a plain loop computes.
#include <cmath>
#include <cstdio>
#include <vector>

#include "swiglu/client.h"
#include "swiglu/typed_view.h"

using swiglu::client::Client;
using swiglu::client::Elements;
using swiglu::client::View;

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: forward HOST:PORT\n");
    return 2;
  }
  // Makes large messages about twice as fast. It changes the whole process, so it comes first.
  swiglu::client::TuneProcess();

  // One client serves the whole program: any number of threads may call it at once, and copies of
  // it share its connections.
  const auto client = Client::Create(argv[1]);
  if (!client.ok()) {
    std::fprintf(stderr, "%s\n", client.status().ToString().c_str());
    return 1;
  }

  // The caller owns the inputs. The client sends them from where they lie.
  std::vector<float> e(4 * 1000), g(e.size());
  for (size_t i = 0; i < e.size(); ++i) {
    e[i] = 8 * std::sin(0.37f * static_cast<float>(i));
    g[i] = 2 * std::cos(0.11f * static_cast<float>(i));
  }

  // A view borrows the elements, and has a shape. futures.cc shows how to have views of BF16.
  const auto h = client->Forward(View(e, {4, 1000}), View(g, {4, 1000}));
  if (!h.ok()) {
    std::fprintf(stderr, "%s\n", h.status().ToString().c_str());
    return 1;
  }

  // The result owns its elements, and has the inputs' dtype and shape. Elements is an error if it
  // is asked for another type.
  const absl::Span<const float> values = Elements<float>(*h).value();
  for (size_t i = 0; i < e.size(); ++i) {
    const double expected = e[i] / (1 + std::exp(-double{e[i]})) * g[i];
    if (!(std::fabs(values[i] - expected) <= 1e-5 * std::fabs(expected))) {
      std::fprintf(stderr, "wrong: h[%zu] is %g, not %g\n", i, values[i], expected);
      return 1;
    }
  }
  std::printf("forward: %zu elements are right\n", e.size());
  return 0;
}
