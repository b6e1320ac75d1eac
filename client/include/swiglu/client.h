// SPDX-License-Identifier: Apache-2.0
//
// The client library. It computes SwiGLU forward and backward on a swiglu-server, and returns what
// the server reports about itself. client_mlp.h has whole MLPs. Sending does not copy the caller's
// tensors, except those of small calls that are joined. Results are copied once, from gRPC's
// buffers to the output tensors. The public headers of the library use no gRPC or protobuf type.
//
// A program that moves much data should call `TuneProcess` as the first statement of `main`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "swiglu/connection.h"
#include "swiglu/future.h"
#include "swiglu/options.h"
#include "swiglu/tensor.h"
#include "swiglu/tensor_place.h"

namespace swiglu::client {

class Mlp;  // client_mlp.h

// What `Client::Backward` returns.
struct BackwardResult {
  Tensor h;   // SiLU(e) * g, as `Client::Forward` returns it
  Tensor df;  // the gradient with respect to g (up)
  Tensor de;  // the gradient with respect to e (gate)
};

// The memory that `Client::BackwardInto` writes the results to.
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
  // By name. The value of "device" names the device that the model runs on.
  std::map<std::string, std::string> properties;
};

// One entry of the server's list of models.
struct ModelState {
  std::string name;
  std::string version;
  std::string state;   // READY or UNAVAILABLE
  std::string reason;  // why the state is UNAVAILABLE; empty if it is READY
};

// What the server has counted for a model since the server started. Each duration is a sum over the
// requests that succeeded.
struct ModelCounters {
  std::string name;
  std::string version;
  int64_t num_requests = 0;  // requests that ran and succeeded
  int64_t num_batches = 0;   // batches that ran
  int64_t num_succeeded = 0;
  int64_t num_failed = 0;
  absl::Duration request_time;  // from the arrival of a request to its response
  absl::Duration queue_time;
  absl::Duration compute_time;
};

// The memory that a server can share with its clients: that of the host, and that of a GPU.
enum class RegionKind { kSystem, kCuda };

// A region of shared memory that is registered at the server.
struct RegionInfo {
  std::string name;
  RegionKind kind = RegionKind::kSystem;
  int64_t size_bytes = 0;
  int64_t device = -1;  // the server's ordinal of the GPU; -1 for a system region
};

// Changes settings of the whole process for large messages:
// - The process keeps freed memory for reuse and does not return it to the kernel. This doubles the
//   throughput. The resident size then stays at its high-water mark.
// - Abseil's deadlock detector is turned off. In builds of gRPC with assertions it costs time at
//   every lock.
// - gRPC does not write to stderr, unless GRPC_VERBOSITY is set, and protobuf does not write to it
//   at all. Calls return their errors as statuses.
//
// Call it as the first statement of `main`.
void TuneProcess();

// Makes the checks that `Client::Forward` and `Client::Backward` make before they send anything:
// the service supports the dtype, all inputs have one dtype and one shape, and their sizes fit the
// shape. The error is INVALID_ARGUMENT, with the text that the server would send.
absl::Status CheckForward(const TensorView& e, const TensorView& g);
absl::Status CheckBackward(const TensorView& dw, const TensorView& e, const TensorView& g);

// What a client and its MLPs send their calls through.
struct CallTarget {
  std::shared_ptr<Connection> connection;
  absl::Duration timeout;  // Options::timeout
};

// A client of one server, or of several that are alike. A small value: copies share the connection,
// which lives as long as one of them. Thread-safe: any number of threads may call it at once. The
// destruction of the last copy waits for the calls that have not ended.
//
// With several servers, each message goes to any of them, over the connection with the fewest
// request bytes under way. If that server is lost or pushes back, the message goes to another one
// at once, and the server is avoided until it is back, or for as long as it says, but at most for a
// minute. A server whose health service reports NOT_SERVING is avoided until it reports SERVING.
// Regions of shared memory need a client of one server.
//
// An operation has three forms. `Forward` blocks until it has a result or an error, or its deadline
// passes. `ForwardAsync` returns a future, or takes a callback; it does not wait for the server.
// Callbacks run on a thread of the client, or on a thread that is inside a call of it, for example
// if a call fails at once. They must not block or throw. After fork() the parent may go on. In
// the child, every call is FAILED_PRECONDITION.
//
// Forward, Backward and the calls of an MLP may be sent several times (Options::max_attempts), may
// be split (Options::max_message_bytes), and may be joined with others (Options::coalesce_bytes).
// All other calls are sent once to each server until one answers. A call reads the caller's tensors
// only until it has ended. If the deadline passes while gRPC is sending bytes of these tensors, the
// call ends when the kernel has taken the bytes or the connection has failed.
//
// Errors:
// - The server's code and message, followed by ` (from ADDRESS)`. If a message was sent several
//   times, ` (tried N times)` follows.
// - UNAVAILABLE, with the address in the message, if there is no connection. Also UNAVAILABLE if
//   the connection broke because the memory of an input cannot be read. This happens if the input
//   is a mapped file that was cut short. The input may also be that of another call. A joined call
//   copies its inputs, so there such a file ends the process with SIGBUS.
// - DEADLINE_EXCEEDED if the deadline passed.
// - CANCELLED if the call's future was cancelled.
// - INTERNAL if the server's answer does not match the request.
// - INVALID_ARGUMENT, before anything is sent, for what CheckForward or CheckBackward refuses, and
//   for a request id or a traceparent that cannot be sent.
// - RESOURCE_EXHAUSTED, before anything is sent, if the memory for a result cannot be allocated.
class Client {
 public:
  // What is called with the result of an operation, once.
  template <typename T>
  using Callback = absl::AnyInvocable<void(T) &&>;

  // Makes a client of the server at `address`: `HOST:PORT` or `unix:/path`, or several of these
  // with commas between them. `dns:///NAME:PORT` is an address, too, and stands for all servers
  // that the name resolves to: each connection of the client has one to each of them, and messages
  // go to these in turn. The name is resolved again when a connection ends, at most every 30 s.
  // Such a group counts as one server, but cannot have regions. `HOST:PORT` is one server, the
  // first that answers, even if the name has several addresses. Does not connect yet. The client
  // ignores the proxies that the environment names. INVALID_ARGUMENT if an address is malformed or
  // there twice, or an option is out of range. RESOURCE_EXHAUSTED if a thread cannot start.
  // FAILED_PRECONDITION in a process that was forked from one that had a client.
  static absl::StatusOr<Client> Create(absl::string_view address, const Options& options = {});

  // A client over another connection, for example a mock. Of the options it uses the timeout.
  explicit Client(std::shared_ptr<Connection> connection, const Options& options = {});

  // What it sends its calls through. Copies have the same one.
  const std::shared_ptr<Connection>& connection() const { return target_.connection; }

  // Returns h = SiLU(e) * g, with the dtype and the shape of the inputs.
  absl::StatusOr<Tensor> Forward(const TensorView& e, const TensorView& g,
                                 const CallOptions& options = {}) const;
  Future<absl::StatusOr<Tensor>> ForwardAsync(const TensorView& e, const TensorView& g,
                                              const CallOptions& options = {}) const;
  void ForwardAsync(const TensorView& e, const TensorView& g,
                    Callback<absl::StatusOr<Tensor>> callback,
                    const CallOptions& options = {}) const;

  // Returns h, and the gradients with respect to g and e. `dw` is the gradient with respect to h.
  absl::StatusOr<BackwardResult> Backward(const TensorView& dw, const TensorView& e,
                                          const TensorView& g,
                                          const CallOptions& options = {}) const;
  Future<absl::StatusOr<BackwardResult>> BackwardAsync(const TensorView& dw, const TensorView& e,
                                                       const TensorView& g,
                                                       const CallOptions& options = {}) const;
  void BackwardAsync(const TensorView& dw, const TensorView& e, const TensorView& g,
                     Callback<absl::StatusOr<BackwardResult>> callback,
                     const CallOptions& options = {}) const;

  // Like `Forward` and `Backward`, but write the results to the caller's memory. An output may be
  // the memory of an input, as in the in-place kernel: h over e in forward; h over dw, df over e,
  // de over g in backward. A partial overlap of an output with another tensor is not allowed. On
  // error the content of the outputs is unspecified. INVALID_ARGUMENT if the sizes of outputs and
  // inputs differ.
  absl::Status ForwardInto(const TensorView& e, const TensorView& g, absl::Span<std::byte> h,
                           const CallOptions& options = {}) const;
  absl::Status BackwardInto(const TensorView& dw, const TensorView& e, const TensorView& g,
                            const BackwardOutputs& outputs, const CallOptions& options = {}) const;

  // The same, but each tensor is in ordinary memory or in a region of shared memory
  // (shared_memory.h). Only tensors in ordinary memory count for the size of messages. All work on
  // the regions must have ended before the call. After the call has returned OK, the results are in
  // their places. INVALID_ARGUMENT also for a part that is not inside its region.
  absl::Status ForwardInto(const InputTensor& e, const InputTensor& g, const OutputTensor& h,
                           const CallOptions& options = {}) const;
  Future<absl::Status> ForwardIntoAsync(const InputTensor& e, const InputTensor& g,
                                        const OutputTensor& h,
                                        const CallOptions& options = {}) const;
  void ForwardIntoAsync(const InputTensor& e, const InputTensor& g, const OutputTensor& h,
                        Callback<absl::Status> callback, const CallOptions& options = {}) const;
  absl::Status BackwardInto(const InputTensor& dw, const InputTensor& e, const InputTensor& g,
                            const BackwardOutputTensors& outputs,
                            const CallOptions& options = {}) const;
  Future<absl::Status> BackwardIntoAsync(const InputTensor& dw, const InputTensor& e,
                                         const InputTensor& g, const BackwardOutputTensors& outputs,
                                         const CallOptions& options = {}) const;
  void BackwardIntoAsync(const InputTensor& dw, const InputTensor& e, const InputTensor& g,
                         const BackwardOutputTensors& outputs, Callback<absl::Status> callback,
                         const CallOptions& options = {}) const;

  // Layer `layer` of the MLP that the server calls `name`. Sends nothing. See client_mlp.h.
  client::Mlp Mlp(absl::string_view name, int layer) const;

  // Whether the server is live. It is live until one of its devices has failed for good.
  absl::StatusOr<bool> ServerLive(const CallOptions& options = {}) const;
  // Whether the server takes requests.
  absl::StatusOr<bool> ServerReady(const CallOptions& options = {}) const;
  // Whether the model exists and takes requests.
  absl::StatusOr<bool> ModelReady(absl::string_view model, const CallOptions& options = {}) const;

  // The name, version and extensions of the server.
  absl::StatusOr<ServerInfo> ServerMetadata(const CallOptions& options = {}) const;
  // NOT_FOUND for a model that does not exist.
  absl::StatusOr<ModelInfo> ModelMetadata(absl::string_view model,
                                          const CallOptions& options = {}) const;
  // All models of the server.
  absl::StatusOr<std::vector<ModelState>> ListModels(const CallOptions& options = {}) const;
  // The counters of `model`, or of every model if `model` is empty.
  absl::StatusOr<std::vector<ModelCounters>> ModelStatistics(absl::string_view model,
                                                             const CallOptions& options = {}) const;

  // Register a region under `name`. A system region is the first `size_bytes` bytes of the file
  // /dev/shm/KEY, where `key` is `/KEY`. A CUDA region is an allocation of a GPU: `handle` has the
  // 64 bytes of its cudaIpcMemHandle_t, and `device` is the server's ordinal of the GPU.
  // SystemRegion and CudaRegion call these methods. The default timeout is 30 s and 1 s more for
  // every 100 MB. UNIMPLEMENTED if the server has this kind of memory off, ALREADY_EXISTS if the
  // name is taken, FAILED_PRECONDITION if the client has several servers.
  absl::Status RegisterSystemRegion(absl::string_view name, absl::string_view key,
                                    int64_t size_bytes, const CallOptions& options = {}) const;
  absl::Status RegisterCudaRegion(absl::string_view name, absl::string_view handle, int64_t device,
                                  int64_t size_bytes, const CallOptions& options = {}) const;

  // Unregister a region, or all regions of a kind, those of other clients included. Requests that
  // already use a region go on. OK also if there is no such region. INVALID_ARGUMENT for an empty
  // name.
  absl::Status UnregisterRegion(RegionKind kind, absl::string_view name,
                                const CallOptions& options = {}) const;
  absl::Status UnregisterAllRegions(RegionKind kind, const CallOptions& options = {}) const;

  // The registered regions of that kind, sorted by name.
  absl::StatusOr<std::vector<RegionInfo>> ListRegions(RegionKind kind,
                                                      const CallOptions& options = {}) const;

 private:
  // An empty name is all regions.
  absl::Status Unregister(RegionKind kind, absl::string_view name,
                          const CallOptions& options) const;

  CallTarget target_;
};

}  // namespace swiglu::client
