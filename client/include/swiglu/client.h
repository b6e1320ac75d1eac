// SPDX-License-Identifier: Apache-2.0
//
// The client library. It computes SwiGLU forward and backward on a swiglu-server, and asks the
// server about itself. Calls are synchronous. The caller's tensors are never copied on the way out.
// Results are copied once, from gRPC's buffers to where they belong. The public headers of the
// library use no gRPC or protobuf type.
//
// A program that moves much data should call `TuneProcess` first thing in `main`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "swiglu/tensor.h"

namespace swiglu::client {

// How a client connects and how it sends.
struct Options {
  // Time that a call may take, connecting and all chunks included. Default 0: 30 s and 1 s more for
  // every 100 MB of the request. Any other value must be above 0. Change it to fail sooner, or for
  // slow networks.
  absl::Duration timeout = absl::ZeroDuration();

  // Connections to the server; a call takes the one with the fewest bytes under way. One carries
  // about 1 to 3 GB/s. They open when first used. Default 0: the number of cores, at most 4. Range
  // 1 to 64.
  int num_connections = 0;

  // The largest message, in bytes, in either direction. An operation that needs a larger one is
  // split by elements. So is one that the server answers with RESOURCE_EXHAUSTED. Default and most:
  // 2^31 - 1, a limit of protobuf. At least 4096. If you lower it to the limit of the server (its
  // --max_request_bytes, or half of its --memory_budget_bytes), the library does not first try a
  // message that is too large.
  int64_t max_message_bytes = (int64_t{1} << 31) - 1;

  // Size, in bytes, of the messages that a split operation is sent in. Each connection carries one
  // of them at a time. Default 32 MiB, at least 4096; max_message_bytes bounds it. Larger ones
  // overlap less, and occupy more of the server's memory.
  int64_t chunk_bytes = int64_t{32} << 20;
};

// Options of a single call.
struct CallOptions {
  // Overrides Options::timeout for this call. With 0 or less, for example the rest of a deadline
  // that has passed, the call fails with DEADLINE_EXCEEDED at once and sends nothing. Default none:
  // what Options say.
  absl::optional<absl::Duration> timeout = absl::nullopt;

  // Called whenever a chunk of a split operation is done, with the number of chunks done so far and
  // the number of all chunks. Not called for an operation that fits into one message. Several
  // threads may call it at once, and in any order; all calls end before the operation returns. If
  // it throws, no further chunk starts. When the running chunks have ended, the operation rethrows
  // the exception. If several calls threw, it rethrows the first exception. Default: none.
  std::function<void(int64_t num_done, int64_t num_chunks)> on_chunk = nullptr;
};

// Results of backward.
struct BackwardResult {
  Tensor h;   // f * g, the same as forward's
  Tensor df;  // the gradient with respect to g (up)
  Tensor de;  // the gradient with respect to e (gate)
};

// Where BackwardInto writes.
struct BackwardOutputs {
  absl::Span<std::byte> h;
  absl::Span<std::byte> df;
  absl::Span<std::byte> de;
};

// What the server reports about itself.
struct ServerInfo {
  std::string name;
  std::string version;
  std::vector<std::string> extensions;
};

// One input or output tensor of a model.
struct TensorInfo {
  std::string name;
  std::string datatype;
  Shape shape;  // -1: any size
};

// What the server reports about a model.
struct ModelInfo {
  std::string name;
  std::string platform;
  std::vector<std::string> versions;
  std::vector<TensorInfo> inputs;
  std::vector<TensorInfo> outputs;
  // Further facts; "device" names what the model runs on.
  std::map<std::string, std::string> properties;
};

// One entry of the server's list of models.
struct ModelState {
  std::string name;
  std::string version;
  std::string state;   // READY or UNAVAILABLE
  std::string reason;  // why not, if it is not
};

// What the server has counted for a model since it started. The durations are sums over all
// requests.
struct ModelCounters {
  std::string name;
  std::string version;
  int64_t num_requests = 0;  // that ran
  int64_t num_batches = 0;   // that ran
  int64_t num_succeeded = 0;
  int64_t num_failed = 0;
  absl::Duration request_time;  // of those that succeeded, from arrival to response
  absl::Duration queue_time;
  absl::Duration compute_time;
};

// Changes settings of the whole process for large messages:
// - Freed memory is kept for reuse and not given back to the kernel. This doubles the throughput.
//   The resident size then stays at its high-water mark.
// - Abseil's deadlock detector is turned off. In builds of gRPC with assertions it costs time at
//   every lock.
// - gRPC and protobuf do not write to stderr, unless GRPC_VERBOSITY is set. Their errors come back
//   as statuses.
//
// Call it as the first line of `main`.
void TuneProcess();

// What `Client::Forward` and `Client::Backward` check before they send anything: the service
// supports the dtype, dtypes and shapes agree, and sizes are those of the shapes. The error is
// INVALID_ARGUMENT, with the text that the server would send.
absl::Status CheckForward(const TensorView& e, const TensorView& g);
absl::Status CheckBackward(const TensorView& dw, const TensorView& e, const TensorView& g);

// A client of one server. Thread-safe: any number of threads may call at once. Destroy it after all
// calls have returned.
//
// Every call blocks until it has a result or its deadline passes. It never retries. A call reads
// the caller's tensors while it runs, and never after it has returned. If the deadline passes while
// gRPC is writing some of these bytes to the connection, the call returns as soon as the kernel has
// taken them or the connection has failed.
//
// Errors:
// - The server's code and message, unchanged.
// - UNAVAILABLE, naming the address, if there is no connection. Also if the connection broke
//   because the memory of an input cannot be read, for example a mapped file that was cut short.
// - DEADLINE_EXCEEDED if the deadline passed.
// - INTERNAL if the answer does not fit the request.
// - INVALID_ARGUMENT, before anything is sent, for what CheckForward and CheckBackward refuse.
// - RESOURCE_EXHAUSTED, before anything is sent, if there is no memory for a result.
class Client {
 public:
  // A client of the server at `address`, `HOST:PORT` or `unix:/path`. Does not connect yet. Proxies
  // that the environment names are not used. INVALID_ARGUMENT for an address or an option out of
  // range.
  static absl::StatusOr<std::unique_ptr<Client>> Create(absl::string_view address,
                                                        const Options& options = {});

  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // h = f * g with f = SiLU(e). h has the dtype and the shape of the inputs.
  absl::StatusOr<Tensor> Forward(const TensorView& e, const TensorView& g,
                                 const CallOptions& options = {});

  // h, and the gradients with respect to g and e. `dw` is the gradient with respect to h.
  absl::StatusOr<BackwardResult> Backward(const TensorView& dw, const TensorView& e,
                                          const TensorView& g, const CallOptions& options = {});

  // The same, but the results are written to the caller's memory. An output may be the memory of an
  // input, as in the in-place kernel (h over e in forward; h over dw, df over e, de over g in
  // backward), but none may overlap another tensor in part. On error the content of the outputs is
  // unspecified. INVALID_ARGUMENT if an output is not of the inputs' size.
  absl::Status ForwardInto(const TensorView& e, const TensorView& g, absl::Span<std::byte> h,
                           const CallOptions& options = {});
  absl::Status BackwardInto(const TensorView& dw, const TensorView& e, const TensorView& g,
                            const BackwardOutputs& outputs, const CallOptions& options = {});

  // Whether the server works at all.
  absl::StatusOr<bool> ServerLive(const CallOptions& options = {});
  // Whether it takes requests.
  absl::StatusOr<bool> ServerReady(const CallOptions& options = {});
  // Whether the model exists and takes requests.
  absl::StatusOr<bool> ModelReady(absl::string_view model, const CallOptions& options = {});

  absl::StatusOr<ServerInfo> ServerMetadata(const CallOptions& options = {});
  // NOT_FOUND for a model that does not exist.
  absl::StatusOr<ModelInfo> ModelMetadata(absl::string_view model, const CallOptions& options = {});
  // All models.
  absl::StatusOr<std::vector<ModelState>> ListModels(const CallOptions& options = {});
  // The counters of `model`, or of every model if it is empty.
  absl::StatusOr<std::vector<ModelCounters>> ModelStatistics(absl::string_view model,
                                                             const CallOptions& options = {});

 private:
  class Impl;

  explicit Client(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace swiglu::client
