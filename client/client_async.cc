// SPDX-License-Identifier: Apache-2.0
//
// The calls of the public class that return a future or take a callback.
#include <memory>
#include <string>
#include <utility>

#include "client/backward_result.h"
#include "client/client_calls.h"
#include "client/infer_call.h"
#include "swiglu/client.h"

namespace swiglu::client {
namespace {

// The end of a call whose result lies in the caller's memory.
CallDone EndInto(Client::Callback<absl::Status> callback) {
  return [callback = std::move(callback)](absl::StatusOr<std::string> weights) mutable {
    std::move(callback)(weights.status());
  };
}

// The end of a call whose result the library has made.
template <typename T>
CallDone EndWith(std::unique_ptr<T> result, Client::Callback<absl::StatusOr<T>> callback) {
  return [result = std::move(result),
          callback = std::move(callback)](absl::StatusOr<std::string> weights) mutable {
    if (weights.ok()) return std::move(callback)(std::move(*result));
    std::move(callback)(weights.status());
  };
}

void StartForward(const CallTarget& target, const TensorView& e, const TensorView& g,
                  const CallOptions& options, Cancellation* cancellation,
                  Client::Callback<absl::StatusOr<Tensor>> callback) {
  absl::Status status = CheckForward(e, g);
  auto h = std::make_unique<Tensor>();
  if (status.ok()) status = MakeTensor("h", e.dtype, e.shape, h.get());
  if (!status.ok()) return std::move(callback)(std::move(status));
  const InferCall call = ElementwiseCall({{"e", e}, {"g", g}}, {{"h", h->mutable_bytes()}});
  StartCall(target, call, options, cancellation, EndWith(std::move(h), std::move(callback)));
}

void StartBackward(const CallTarget& target, const TensorView& dw, const TensorView& e,
                   const TensorView& g, const CallOptions& options, Cancellation* cancellation,
                   Client::Callback<absl::StatusOr<BackwardResult>> callback) {
  absl::Status status = CheckBackward(dw, e, g);
  auto result = std::make_unique<BackwardResult>();
  if (status.ok()) status = MakeResult(e, result.get());
  if (!status.ok()) return std::move(callback)(std::move(status));
  const InferCall call = BackwardCall(dw, e, g, OutputsOf(*result));
  StartCall(target, call, options, cancellation, EndWith(std::move(result), std::move(callback)));
}

}  // namespace

Future<absl::StatusOr<Tensor>> Client::ForwardAsync(const TensorView& e, const TensorView& g,
                                                    const CallOptions& options) const {
  return MakeFuture<absl::StatusOr<Tensor>>([&](Cancellation* cancellation, auto callback) {
    StartForward(target_, e, g, options, cancellation, std::move(callback));
  });
}

void Client::ForwardAsync(const TensorView& e, const TensorView& g,
                          Callback<absl::StatusOr<Tensor>> callback,
                          const CallOptions& options) const {
  StartForward(target_, e, g, options, nullptr, std::move(callback));
}

Future<absl::StatusOr<BackwardResult>> Client::BackwardAsync(const TensorView& dw,
                                                             const TensorView& e,
                                                             const TensorView& g,
                                                             const CallOptions& options) const {
  return MakeFuture<absl::StatusOr<BackwardResult>>([&](Cancellation* cancellation, auto callback) {
    StartBackward(target_, dw, e, g, options, cancellation, std::move(callback));
  });
}

void Client::BackwardAsync(const TensorView& dw, const TensorView& e, const TensorView& g,
                           Callback<absl::StatusOr<BackwardResult>> callback,
                           const CallOptions& options) const {
  StartBackward(target_, dw, e, g, options, nullptr, std::move(callback));
}

Future<absl::Status> Client::ForwardIntoAsync(const InputTensor& e, const InputTensor& g,
                                              const OutputTensor& h,
                                              const CallOptions& options) const {
  return MakeFuture<absl::Status>([&](Cancellation* cancellation, auto callback) {
    StartCall(target_, ElementwiseCall({{"e", e}, {"g", g}}, {{"h", h}}), options, cancellation,
              EndInto(std::move(callback)));
  });
}

void Client::ForwardIntoAsync(const InputTensor& e, const InputTensor& g, const OutputTensor& h,
                              Callback<absl::Status> callback, const CallOptions& options) const {
  StartCall(target_, ElementwiseCall({{"e", e}, {"g", g}}, {{"h", h}}), options, nullptr,
            EndInto(std::move(callback)));
}

Future<absl::Status> Client::BackwardIntoAsync(const InputTensor& dw, const InputTensor& e,
                                               const InputTensor& g,
                                               const BackwardOutputTensors& outputs,
                                               const CallOptions& options) const {
  return MakeFuture<absl::Status>([&](Cancellation* cancellation, auto callback) {
    StartCall(target_, BackwardCall(dw, e, g, outputs), options, cancellation,
              EndInto(std::move(callback)));
  });
}

void Client::BackwardIntoAsync(const InputTensor& dw, const InputTensor& e, const InputTensor& g,
                               const BackwardOutputTensors& outputs,
                               Callback<absl::Status> callback, const CallOptions& options) const {
  StartCall(target_, BackwardCall(dw, e, g, outputs), options, nullptr,
            EndInto(std::move(callback)));
}

}  // namespace swiglu::client
