// SPDX-License-Identifier: Apache-2.0
//
// What the public classes have in common: how a call is checked and goes to the connection, in its
// three forms.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "client/infer_call.h"
#include "swiglu/client.h"
#include "swiglu/future.h"
#include "swiglu/tensor.h"

namespace swiglu::client {

// FAILED_PRECONDITION if there are several servers: a region would be known to one of them.
absl::Status CheckRegionsAllowed(const Connection& connection);

// The time limit of a call with tensors of so many bytes.
TimeLimit LimitOf(const CallTarget& target, int64_t num_bytes, const CallOptions& options);

// Checks the call, and runs it. Blocks. Returns the SHA-256 of the weights that computed its
// results, or an empty text if the model has no weights. Rethrows what `on_chunk` threw.
absl::StatusOr<std::string> RunCall(const CallTarget& target, const InferCall& call,
                                    const CallOptions& options);

// The same, but does not block: calls `done` when the call has ended. `cancellation`, which may be
// nullptr, must live until then.
using CallDone = Client::Callback<absl::StatusOr<std::string>>;
void StartCall(const CallTarget& target, const InferCall& call, const CallOptions& options,
               Cancellation* cancellation, CallDone done);

// The same, for a call whose model has no weights.
void StartCall(const CallTarget& target, const InferCall& call, const CallOptions& options,
               Cancellation* cancellation, Client::Callback<absl::Status> callback);

// A call, or the reason why it cannot be made.
struct PreparedCall {
  // Checks the inputs of `its_call`, which has no outputs yet.
  explicit PreparedCall(InferCall its_call);

  // Gives `tensor` the dtype and the shape of the inputs, and makes it an output.
  void AddOutput(absl::string_view name, Tensor* tensor);
  // The same, for a gradient of weights of that shape.
  void AddGradient(absl::string_view name, Shape shape, OutputForm form, Tensor* tensor);

  InferCall call;
  absl::Status status;

 private:
  void Add(absl::string_view name, Dtype dtype, Shape shape, OutputForm form, Tensor* tensor);
};

// A call whose outputs are the tensors of `result`, which the library makes.
template <typename R>
struct ResultCall : PreparedCall {
  using PreparedCall::PreparedCall;

  R result;
};

// What the program gets of a call that has ended.
template <typename R>
absl::StatusOr<R> ToResult(R result, absl::StatusOr<std::string> weights) {
  if (!weights.ok()) return std::move(weights).status();
  if constexpr (requires { result.weights_sha256; }) result.weights_sha256 = *std::move(weights);
  return result;
}

template <typename R>
absl::StatusOr<R> RunCall(const CallTarget& target, ResultCall<R> call,
                          const CallOptions& options) {
  if (!call.status.ok()) return std::move(call.status);
  absl::StatusOr<std::string> weights = RunCall(target, call.call, options);
  return ToResult(std::move(call.result), std::move(weights));
}

template <typename R>
void StartCall(const CallTarget& target, ResultCall<R> call, const CallOptions& options,
               Cancellation* cancellation, Client::Callback<absl::StatusOr<R>> callback) {
  if (!call.status.ok()) return std::move(callback)(std::move(call.status));
  // The bytes of the tensors stay where they are when the result moves.
  StartCall(target, call.call, options, cancellation,
            CallDone([result = std::move(call.result),
                      callback = std::move(callback)](absl::StatusOr<std::string> weights) mutable {
              std::move(callback)(ToResult(std::move(result), std::move(weights)));
            }));
}

// Starts a call, and returns the future of what a callback would get. `Call` is an InferCall or a
// ResultCall.
template <typename T, typename Call>
Future<T> MakeFuture(const CallTarget& target, Call call, const CallOptions& options) {
  auto state = std::make_shared<typename Future<T>::State>();
  StartCall(target, std::move(call), options, state->cancellation(),
            Client::Callback<T>([state](T value) {
              state->value = std::move(value);
              state->SetReady();
            }));
  return Future<T>(std::move(state));
}

// Makes one call of the method `rpc`, with small messages. `num_bytes`, of memory elsewhere, give
// it more time.
template <typename Response, typename Request>
absl::StatusOr<Response> Control(const CallTarget& target, absl::string_view rpc,
                                 const Request& request, const CallOptions& options,
                                 int64_t num_bytes = 0) {
  const absl::StatusOr<std::string> answer = target.connection->Control(
      rpc, request.SerializeAsString(), LimitOf(target, num_bytes, options));
  if (!answer.ok()) return answer.status();
  Response response;
  if (!response.ParseFromString(*answer)) {
    return absl::InternalError(absl::StrCat("bad response: not a ", rpc, "Response"));
  }
  return response;
}

}  // namespace swiglu::client
