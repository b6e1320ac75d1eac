// SPDX-License-Identifier: Apache-2.0
//
// What the public classes have in common: how a checked call goes to the connection, in its three
// forms.
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

// Gives `tensor` that dtype and shape, with uninitialised bytes. RESOURCE_EXHAUSTED, with `name` in
// the message, if there is no memory for it. REQUIRES: TensorBytes takes the dtype and the shape.
absl::Status MakeTensor(absl::string_view name, Dtype dtype, Shape shape, Tensor* tensor);

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
using CallDone = absl::AnyInvocable<void(absl::StatusOr<std::string>) &&>;
void StartCall(const CallTarget& target, const InferCall& call, const CallOptions& options,
               Cancellation* cancellation, CallDone done);

// A future, which `start` begins: it gets a cancellation and what is called with the result.
template <typename T, typename Start>
Future<T> MakeFuture(const Start& start) {
  auto state = std::make_shared<typename Future<T>::State>();
  start(state->cancellation(), Client::Callback<T>([state](T value) {
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
