// SPDX-License-Identifier: Apache-2.0
//
// What the public classes of the library share: the connections of a client, the time limits of its
// calls, and the two kinds of calls.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/connection_pool.h"
#include "client/infer_call.h"
#include "client/infer_runner.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/slice.h"
#include "swiglu/client.h"
#include "swiglu/tensor.h"

namespace swiglu::client {

inline constexpr char kService[] = "/inference.GRPCInferenceService/";

// The timeout of a call without tensors, and what each byte of its tensors adds: 1 s for 100 MB.
inline constexpr absl::Duration kBaseTimeout = absl::Seconds(30);
inline constexpr absl::Duration kTimeoutPerByte = absl::Nanoseconds(10);

// Gives `tensor` that dtype and shape, with uninitialised bytes. RESOURCE_EXHAUSTED, with `name` in
// the message, if there is no memory for it. REQUIRES: TensorBytes takes the dtype and the shape.
absl::Status MakeTensor(absl::string_view name, Dtype dtype, Shape shape, Tensor* tensor);

// Thread-safe.
class Client::Impl {
 public:
  // REQUIRES: the options are checked, and every default is resolved.
  Impl(const std::vector<std::string>& addresses, const Options& options);

  // Checks the call, and runs it. Returns the SHA-256 of the weights that computed its results, or
  // an empty text if the model has no weights.
  absl::StatusOr<std::string> Infer(const InferCall& call, const CallOptions& call_options);

  // Makes one call of the method `rpc`, with small messages. `num_bytes`, of memory elsewhere, give
  // it more time.
  template <typename Response, typename Request>
  absl::StatusOr<Response> Control(absl::string_view rpc, const Request& request,
                                   const CallOptions& call_options, int64_t num_bytes = 0) {
    const TimeLimit limit(Timeout(num_bytes, call_options));
    OutgoingMessage message;
    message.Append(grpc::Slice(request.SerializeAsString()));
    const absl::StatusOr<grpc::ByteBuffer> answer =
        pool_.Call(absl::StrCat(kService, rpc), std::move(message), limit).answer;
    if (!answer.ok()) return answer.status();
    grpc::Slice bytes;
    Response response;
    if (!answer->DumpToSingleSlice(&bytes).ok() ||
        !response.ParseFromArray(bytes.begin(), static_cast<int>(bytes.size()))) {
      return absl::InternalError(absl::StrCat("bad response: not a ", rpc, "Response"));
    }
    return response;
  }

  // FAILED_PRECONDITION if there are several servers: a region would be known to one of them.
  absl::Status CheckRegionsAllowed() const;

  // An empty name is all regions.
  absl::Status Unregister(RegionKind kind, absl::string_view name, const CallOptions& call_options);

 private:
  absl::Duration Timeout(int64_t num_bytes, const CallOptions& call_options) const;

  const Options options_;
  ConnectionPool pool_;
  InferRunner runner_;
};

}  // namespace swiglu::client
