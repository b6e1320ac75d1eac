// SPDX-License-Identifier: Apache-2.0
//
// One function for each way to call.
#include "tests/client/call_forms.h"

#include <ostream>
#include <string>
#include <utility>

#include "absl/synchronization/notification.h"
#include "absl/types/optional.h"
#include "gtest/gtest.h"
#include "swiglu/client_mlp.h"
#include "tests/client/bytes.h"
#include "tests/client/fake_server.h"

namespace swiglu::client {
namespace {

constexpr int64_t kFormRowElements = 64;

std::string Flip(std::string bytes) {
  for (char& c : bytes) c = static_cast<char>(~c);
  return bytes;
}

// The bytes of a tensor. Tensors of different seeds differ.
std::string FormBytes(int64_t num_rows, uint32_t seed) {
  return Pattern(static_cast<size_t>(num_rows * kFormRowElements * ElementBytes(Dtype::kFp16)),
                 seed);
}

TensorView FormView(int64_t num_rows, const std::string& bytes) {
  return {Dtype::kFp16, {num_rows, kFormRowElements}, AsBytes(bytes)};
}

absl::Status Flipped(const absl::StatusOr<Tensor>& h, const std::string& e) {
  if (!h.ok()) return h.status();
  EXPECT_TRUE(AsText(h->bytes()) == Flip(e));
  return absl::OkStatus();
}

absl::Status CallForward(Client& client, int64_t num_rows, const CallOptions& options) {
  const std::string e = FormBytes(num_rows, 1), g = FormBytes(num_rows, 2);
  return Flipped(client.Forward(FormView(num_rows, e), FormView(num_rows, g), options), e);
}

absl::Status CallForwardInto(Client& client, int64_t num_rows, const CallOptions& options) {
  const std::string e = FormBytes(num_rows, 3), g = FormBytes(num_rows, 4);
  std::string h(e.size(), '\0');
  const absl::Status status =
      client.ForwardInto(FormView(num_rows, e), FormView(num_rows, g), AsWritableBytes(h), options);
  if (!status.ok()) return status;
  EXPECT_TRUE(h == Flip(e));
  return status;
}

// The tensors of an operation in place.
struct InPlaceTensors {
  TensorView dw, e, g;
  BackwardOutputs outputs;
};

// Runs `call`, which returns the error of a call, and expects the results over the inputs.
template <typename Call>
absl::Status CheckBackwardInPlace(int64_t num_rows, const Call& call) {
  const std::string dw = FormBytes(num_rows, 5), e = FormBytes(num_rows, 6),
                    g = FormBytes(num_rows, 7);
  std::string h = dw, df = e, de = g;
  const absl::Status status =
      call({FormView(num_rows, h),
            FormView(num_rows, df),
            FormView(num_rows, de),
            {AsWritableBytes(h), AsWritableBytes(df), AsWritableBytes(de)}});
  if (!status.ok()) return status;
  EXPECT_TRUE(h == Flip(dw));
  EXPECT_TRUE(df == Flip(e));
  EXPECT_TRUE(de == Flip(g));
  return status;
}

absl::Status CallBackwardInPlace(Client& client, int64_t num_rows, const CallOptions& options) {
  return CheckBackwardInPlace(num_rows, [&](const InPlaceTensors& tensors) {
    return client.BackwardInto(tensors.dw, tensors.e, tensors.g, tensors.outputs, options);
  });
}

absl::Status FlippedMlp(const absl::StatusOr<MlpForwardResult>& result, const std::string& x) {
  if (!result.ok()) return result.status();
  EXPECT_TRUE(AsText(result->y.bytes()) == Flip(x));
  EXPECT_EQ(result->weights_sha256, kFakeWeights);
  return absl::OkStatus();
}

absl::Status CallMlpForward(Client& client, int64_t num_rows, const CallOptions& options) {
  const std::string x = FormBytes(num_rows, 8);
  return FlippedMlp(client.Mlp("m", 0).Forward(FormView(num_rows, x), options), x);
}

// Gives `start` a callback, and waits for what it is called with.
template <typename T, typename Start>
T WaitForCallback(const Start& start) {
  absl::optional<T> result;
  absl::Notification is_called;
  start(Client::Callback<T>([&](T value) {
    result = std::move(value);
    is_called.Notify();
  }));
  is_called.WaitForNotification();
  return *std::move(result);
}

absl::Status CallForwardFuture(Client& client, int64_t num_rows, const CallOptions& options) {
  const std::string e = FormBytes(num_rows, 9), g = FormBytes(num_rows, 10);
  auto future = client.ForwardAsync(FormView(num_rows, e), FormView(num_rows, g), options);
  return Flipped(future.Get(), e);
}

absl::Status CallForwardCallback(Client& client, int64_t num_rows, const CallOptions& options) {
  const std::string e = FormBytes(num_rows, 11), g = FormBytes(num_rows, 12);
  return Flipped(WaitForCallback<absl::StatusOr<Tensor>>([&](auto callback) {
                   client.ForwardAsync(FormView(num_rows, e), FormView(num_rows, g),
                                       std::move(callback), options);
                 }),
                 e);
}

absl::Status CallForwardIntoFuture(Client& client, int64_t num_rows, const CallOptions& options) {
  const std::string e = FormBytes(num_rows, 13), g = FormBytes(num_rows, 14);
  std::string h(e.size(), '\0');
  absl::Status status = client
                            .ForwardIntoAsync(FormView(num_rows, e), FormView(num_rows, g),
                                              AsWritableBytes(h), options)
                            .Get();
  if (!status.ok()) return status;
  EXPECT_TRUE(h == Flip(e));
  return status;
}

absl::Status CallForwardIntoCallback(Client& client, int64_t num_rows, const CallOptions& options) {
  const std::string e = FormBytes(num_rows, 15), g = FormBytes(num_rows, 16);
  std::string h(e.size(), '\0');
  absl::Status status = WaitForCallback<absl::Status>([&](auto callback) {
    client.ForwardIntoAsync(FormView(num_rows, e), FormView(num_rows, g), AsWritableBytes(h),
                            std::move(callback), options);
  });
  if (!status.ok()) return status;
  EXPECT_TRUE(h == Flip(e));
  return status;
}

absl::Status CallBackwardInPlaceFuture(Client& client, int64_t num_rows,
                                       const CallOptions& options) {
  return CheckBackwardInPlace(num_rows, [&](const InPlaceTensors& tensors) {
    return client
        .BackwardIntoAsync(tensors.dw, tensors.e, tensors.g,
                           {tensors.outputs.h, tensors.outputs.df, tensors.outputs.de}, options)
        .Get();
  });
}

absl::Status CallBackwardInPlaceCallback(Client& client, int64_t num_rows,
                                         const CallOptions& options) {
  return CheckBackwardInPlace(num_rows, [&](const InPlaceTensors& tensors) {
    return WaitForCallback<absl::Status>([&](auto callback) {
      client.BackwardIntoAsync(tensors.dw, tensors.e, tensors.g,
                               {tensors.outputs.h, tensors.outputs.df, tensors.outputs.de},
                               std::move(callback), options);
    });
  });
}

absl::Status CallMlpForwardFuture(Client& client, int64_t num_rows, const CallOptions& options) {
  const std::string x = FormBytes(num_rows, 17);
  auto future = client.Mlp("m", 0).ForwardAsync(FormView(num_rows, x), options);
  return FlippedMlp(future.Get(), x);
}

absl::Status CallMlpForwardCallback(Client& client, int64_t num_rows, const CallOptions& options) {
  const std::string x = FormBytes(num_rows, 18);
  return FlippedMlp(WaitForCallback<absl::StatusOr<MlpForwardResult>>([&](auto callback) {
                      client.Mlp("m", 0).ForwardAsync(FormView(num_rows, x), std::move(callback),
                                                      options);
                    }),
                    x);
}

// Runs `call`, which returns the weights of a call of an MLP, and expects the result over x.
template <typename Call>
absl::Status CheckMlpInPlace(int64_t num_rows, uint32_t seed, const Call& call) {
  const std::string old_x = FormBytes(num_rows, seed), dy = FormBytes(num_rows, seed + 1);
  std::string x = old_x;
  const absl::StatusOr<std::string> weights =
      call(FormView(num_rows, x), FormView(num_rows, dy), AsWritableBytes(x));
  if (!weights.ok()) return weights.status();
  EXPECT_TRUE(x == Flip(old_x));
  EXPECT_EQ(*weights, kFakeWeights);
  return absl::OkStatus();
}

absl::Status CallMlpForwardInPlaceFuture(Client& client, int64_t num_rows,
                                         const CallOptions& options) {
  return CheckMlpInPlace(num_rows, 19, [&](const TensorView& x, const TensorView&, auto y) {
    return client.Mlp("m", 0).ForwardIntoAsync(x, y, options).Get();
  });
}

absl::Status CallMlpBackwardInPlaceCallback(Client& client, int64_t num_rows,
                                            const CallOptions& options) {
  return CheckMlpInPlace(num_rows, 21, [&](const TensorView& x, const TensorView& dy, auto dx) {
    return WaitForCallback<absl::StatusOr<std::string>>([&](auto callback) {
      client.Mlp("m", 0).BackwardIntoAsync(x, dy, dx, std::move(callback), options);
    });
  });
}

constexpr Form kForms[] = {
    {"Forward", "swiglu_forward_fp16", "h", &CallForward},
    {"ForwardInto", "swiglu_forward_fp16", "h", &CallForwardInto},
    {"BackwardInPlace", "swiglu_backward_fp16", "h", &CallBackwardInPlace},
    {"MlpForward", "mlp_m_0_forward", "y", &CallMlpForward},
    {"ForwardFuture", "swiglu_forward_fp16", "h", &CallForwardFuture},
    {"ForwardIntoFuture", "swiglu_forward_fp16", "h", &CallForwardIntoFuture},
    {"BackwardInPlaceFuture", "swiglu_backward_fp16", "h", &CallBackwardInPlaceFuture},
    {"MlpForwardFuture", "mlp_m_0_forward", "y", &CallMlpForwardFuture},
    {"MlpForwardInPlaceFuture", "mlp_m_0_forward", "y", &CallMlpForwardInPlaceFuture},
    {"ForwardCallback", "swiglu_forward_fp16", "h", &CallForwardCallback},
    {"ForwardIntoCallback", "swiglu_forward_fp16", "h", &CallForwardIntoCallback},
    {"BackwardInPlaceCallback", "swiglu_backward_fp16", "h", &CallBackwardInPlaceCallback},
    {"MlpForwardCallback", "mlp_m_0_forward", "y", &CallMlpForwardCallback},
    {"MlpBackwardInPlaceCallback", "mlp_m_0_backward", "dx", &CallMlpBackwardInPlaceCallback},
};

}  // namespace

absl::Span<const Form> Forms() { return kForms; }

inference::ModelInferResponse FlipInfer(const inference::ModelInferRequest& request) {
  inference::ModelInferResponse response = EchoInfer(request);
  for (std::string& bytes : *response.mutable_raw_output_contents()) bytes = Flip(bytes);
  return response;
}

void PrintTo(const Form& form, std::ostream* out) { *out << form.name; }

}  // namespace swiglu::client
