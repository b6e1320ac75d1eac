// SPDX-License-Identifier: Apache-2.0
//
// Example: calls with callbacks, which start further calls: forward, and backward on its result.
// `callbacks HOST:PORT` ends with 0 if every answer is what a plain loop computes.
#include <cmath>
#include <cstdio>
#include <latch>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "swiglu/client.h"
#include "swiglu/typed_view.h"

using swiglu::client::BackwardResult;
using swiglu::client::Client;
using swiglu::client::Elements;
using swiglu::client::Tensor;
using swiglu::client::View;

namespace {

constexpr size_t kNumElements = 1000;

// The gradients of |h|^2 / 2, for one pair of inputs. It must not move while a call uses it.
struct Step {
  std::vector<float> e = std::vector<float>(kNumElements);
  std::vector<float> g = std::vector<float>(kNumElements);
  Tensor h;  // the gradient with respect to h is h itself
  absl::StatusOr<BackwardResult> result = absl::UnknownError("not there yet");
};

// Callbacks run on a thread of the client, or on this one if a call fails at once. They must not
// block. They may start other calls, which do not block.
void Start(const Client& client, Step& step, std::latch& running) {
  client.ForwardAsync(
      View(step.e), View(step.g), [&client, &step, &running](absl::StatusOr<Tensor> h) {
        if (!h.ok()) {
          step.result = h.status();
          running.count_down();
          return;
        }
        step.h = *std::move(h);
        client.BackwardAsync(step.h.view(), View(step.e), View(step.g),
                             [&step, &running](absl::StatusOr<BackwardResult> result) {
                               step.result = std::move(result);
                               running.count_down();
                             });
      });
}

bool IsNear(double found, double expected) {
  return std::fabs(found - expected) <= 1e-5 * (1 + std::fabs(expected));
}

bool IsRight(const Step& step) {
  const absl::Span<const float> df = Elements<float>(step.result->df).value();
  const absl::Span<const float> de = Elements<float>(step.result->de).value();
  for (size_t i = 0; i < kNumElements; ++i) {
    const double e = step.e[i], g = step.g[i];
    const double sigmoid = 1 / (1 + std::exp(-e));
    const double f = e * sigmoid;
    const double slope = sigmoid * (1 + e * (1 - sigmoid));  // of SiLU at e
    if (!IsNear(df[i], f * g * f) || !IsNear(de[i], f * g * g * slope)) return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: callbacks HOST:PORT\n");
    return 2;
  }
  swiglu::client::TuneProcess();
  const auto client = Client::Create(argv[1]);
  if (!client.ok()) {
    std::fprintf(stderr, "%s\n", client.status().ToString().c_str());
    return 1;
  }

  std::vector<Step> steps(16);
  std::latch running(static_cast<std::ptrdiff_t>(steps.size()));
  for (size_t k = 0; k < steps.size(); ++k) {
    for (size_t i = 0; i < kNumElements; ++i) {
      steps[k].e[i] = 8 * std::sin(0.37f * static_cast<float>(k + i));
      steps[k].g[i] = 2 * std::cos(0.11f * static_cast<float>(k * i));
    }
    Start(*client, steps[k], running);
  }
  running.wait();

  for (const Step& step : steps) {
    if (!step.result.ok()) {
      std::fprintf(stderr, "%s\n", step.result.status().ToString().c_str());
      return 1;
    }
    if (!IsRight(step)) {
      std::fprintf(stderr, "wrong: a gradient\n");
      return 1;
    }
  }
  std::printf("callbacks: %zu gradients are right\n", steps.size());
  return 0;
}
