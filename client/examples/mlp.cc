// SPDX-License-Identifier: Apache-2.0
//
// Example: a layer of an MLP, whose weights are on the server, forward and backward. `mlp HOST:PORT
// NAME` asks for layer 0 of the MLP NAME. It does not know the weights, so it compares the gradient
// with a difference of results, and ends with 0 if they agree.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "swiglu/client.h"
#include "swiglu/client_mlp.h"

using swiglu::client::Client;
using swiglu::client::Dtype;
using swiglu::client::Mlp;
using swiglu::client::Tensor;
using swiglu::client::TensorView;

namespace {

constexpr int64_t kNumTokens = 5;

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}

// The tokens `scale` * x in `dtype`. The elements of x have two bits of fraction, so that scales of
// a few eighths round nothing.
Tensor Tokens(Dtype dtype, int64_t hidden, float scale) {
  Tensor tokens(dtype, {kNumTokens, hidden}, kNumTokens * hidden * 2);
  uint32_t seed = 1;
  for (int64_t i = 0; i < kNumTokens * hidden; ++i) {
    seed = seed * 1664525u + 1013904223u;
    const float sign = (seed >> 31) == 0 ? 1.0f : -1.0f;
    const float value = scale * sign * static_cast<float>(4 + (seed >> 24 & 3)) / 8;
    uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof(bits));
    // FP16 has another exponent than float, with a bias of 15 and not of 127. BF16 is half a float.
    const uint32_t fp16 = (bits >> 16 & 0x8000) | (((bits >> 13) - (112u << 10)) & 0x7fff);
    const auto element = static_cast<uint16_t>(dtype == Dtype::kFp16 ? fp16 : bits >> 16);
    std::memcpy(tokens.mutable_bytes().data() + 2 * i, &element, sizeof(element));
  }
  return tokens;
}

// Element i of a tensor in FP16 or BF16. Results of this example are normal numbers or 0.
double At(const TensorView& tensor, size_t i) {
  uint16_t element = 0;
  std::memcpy(&element, tensor.bytes.data() + 2 * i, sizeof(element));
  const uint32_t magnitude = element & 0x7fffu;
  uint32_t bits = static_cast<uint32_t>(element) << 16;
  if (tensor.dtype == Dtype::kFp16) {
    bits = (element & 0x8000u) << 16 | (magnitude == 0 ? 0 : (magnitude << 13) + (112u << 23));
  }
  float value = 0;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

double Dot(const TensorView& a, const TensorView& b) {
  double sum = 0;
  for (size_t i = 0; i < a.bytes.size() / 2; ++i) sum += At(a, i) * At(b, i);
  return sum;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: mlp HOST:PORT NAME\n");
    return 2;
  }
  swiglu::client::TuneProcess();
  const auto client = Client::Create(argv[1]);
  if (!client.ok()) return Fail(client.status());
  const Mlp mlp = client->Mlp(argv[2], 0);

  // The server tells the dtype and the hidden size.
  const auto info = client->ModelMetadata(mlp.forward_model());
  if (!info.ok()) return Fail(info.status());
  const Dtype dtype = swiglu::client::ParseDatatype(info->inputs.at(0).datatype).value();
  const int64_t hidden = info->inputs.at(0).shape.back();

  // The gradient of |y|^2 / 2 with respect to y is y, and that with respect to x is dx.
  const Tensor x = Tokens(dtype, hidden, 1);
  const auto forward = mlp.Forward(x.view());
  if (!forward.ok()) return Fail(forward.status());
  const auto backward = mlp.Backward(x.view(), forward->y.view());
  if (!backward.ok()) return Fail(backward.status());

  // The same function at a little more and a little less than x.
  double halves[2] = {};
  for (const int k : {0, 1}) {
    const Tensor near_x = Tokens(dtype, hidden, k == 0 ? 1.125f : 0.875f);
    const auto near = mlp.Forward(near_x.view());
    if (!near.ok()) return Fail(near.status());
    // Weights may change between calls. Results say which ones computed them.
    if (near->weights_sha256 != forward->weights_sha256 ||
        near->weights_sha256 != backward->weights_sha256) {
      std::fprintf(stderr, "the weights changed between the calls\n");
      return 1;
    }
    halves[k] = Dot(near->y.view(), near->y.view()) / 2;
  }
  const double slope = Dot(backward->dx.view(), x.view());
  const double difference = (halves[0] - halves[1]) / 0.25;
  // |y|^2 grows as the square of x if y is linear in x, and faster if y is that of an MLP.
  const double growth = halves[0] / halves[1];
  const bool is_linear = growth < 1.1 * (1.125 * 1.125) / (0.875 * 0.875);
  if (is_linear || std::fabs(slope - difference) > 0.1 * std::fabs(difference)) {
    std::fprintf(stderr, "wrong: the slope is %g, the difference %g, the growth %g\n", slope,
                 difference, growth);
    return 1;
  }
  std::printf("mlp: the gradient of %d tokens is right\n", static_cast<int>(kNumTokens));
  return 0;
}
