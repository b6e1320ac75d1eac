// SPDX-License-Identifier: Apache-2.0
//
// The client library. It computes SwiGLU forward and backward on a swiglu-server, and returns what
// the server reports about itself. client_mlp.h has whole MLPs. Calls are synchronous. Sending does
// not copy the caller's tensors. Results are copied once, from gRPC's buffers to the output
// tensors. The public headers of the library use no gRPC or protobuf type.
//
// A program that moves much data should call `TuneProcess` as the first statement of `main`.
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
#include "swiglu/tensor_place.h"

namespace swiglu::client {

// How a client connects to the server, and how it sends requests.
struct Options {
  // The longest time that a call may take. It includes the time to connect and the time of all
  // chunks. 0, the default, means 30 s plus 1 s for every 100 MB of tensors, inputs and outputs
  // together. Negative values are invalid. Set a shorter time to fail sooner, or a longer one for a
  // slow network.
  absl::Duration timeout = absl::ZeroDuration();

  // The number of connections to each server, 1 to 64. Each carries about 1 to 3 GB/s, and opens
  // when it is first used. A message is sent over the connection with the fewest request bytes
  // under way. 0, the default, means one connection for each core, at most 4.
  int num_connections = 0;

  // The largest message, in bytes, in either direction: 4096 to 2^31 - 1. The default is 2^31 - 1,
  // a limit of protobuf. An operation that needs a larger message is split by elements. An
  // operation is also split if the server answers RESOURCE_EXHAUSTED to a message larger than
  // `chunk_bytes`. If you set this to the server's limit (its --max_request_bytes, or half of its
  // --memory_budget_bytes), the library does not first try a message that is too large.
  int64_t max_message_bytes = (int64_t{1} << 31) - 1;

  // The size, in bytes, of the messages of a split operation: 4096 to 2^31 - 1, default 32 MiB. A
  // value above `max_message_bytes` counts as `max_message_bytes`. One such message per connection
  // is under way at a time. Larger messages overlap less with each other, and occupy more of the
  // server's memory.
  int64_t chunk_bytes = int64_t{32} << 20;

  // How often the library sends a message at most, 1 to 100: after UNAVAILABLE, and when the server
  // pushes back, it waits and sends the message again within the call's timeout. An operation is
  // pure, so a message that has been computed twice does no harm. It waits as long as the server
  // says (`grpc-retry-pushback-ms`), or else a random part of 50 ms, 100 ms, ... 1 s. Default 4. A
  // split operation waits for a server that pushes its chunks back as often as its timeout allows.
  int max_attempts = 4;

  // How many retries each call earns, 0 to 1. A client has 10 retries at first and never more, so
  // that many clients do not multiply the load of a server that fails. 0 turns retries off. Default
  // 0.1.
  double retry_budget = 0.1;

  // Whether a call polls its connection without sleeping while it waits. Default false. If true, an
  // answer arrives some microseconds earlier, and each call under way keeps a core busy.
  bool spin = false;
};

class Mlp;  // client_mlp.h

// Options of a single call.
struct CallOptions {
  // Overrides Options::timeout for this call. With 0 or less, the call sends nothing and fails with
  // DEADLINE_EXCEEDED at once. So a caller may pass the time left until its own deadline, even if
  // that deadline has passed. Default: none, which means Options::timeout.
  absl::optional<absl::Duration> timeout = absl::nullopt;

  // Called each time a chunk of a split operation has succeeded, with the number of chunks done so
  // far and the number of all chunks, which grows if the server finds chunks too large. Never
  // called for an operation that is not split. Several threads may call it at once, so the numbers
  // may arrive out of order. All calls return before the operation returns. If a call throws, no
  // further chunk starts, and the operation rethrows the first exception when the running chunks
  // have ended. Default: none.
  std::function<void(int64_t num_done, int64_t num_chunks)> on_chunk = nullptr;
};

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

// A client of one server, or of several that are alike. Thread-safe: any number of threads may call
// it at once. Destroy it only after all calls have returned.
//
// With several servers, each message goes to any of them, over the connection with the fewest
// request bytes under way. If that server is lost or pushes back, the message goes to another one
// at once, and the server is avoided until it is back, or for as long as it says, but at most for a
// minute. All other calls, such as ServerReady, are sent once, to one of the servers. Regions of
// shared memory need a client of one server.
//
// Every call blocks until it has a result or an error, or its deadline passes. Forward, Backward
// and the calls of an MLP may be sent several times (Options::max_attempts), and may be split
// (Options::max_message_bytes). All other calls are sent once. A call reads the caller's tensors
// only until it returns. If the deadline passes while gRPC is sending bytes of these tensors, the
// call returns when the kernel has taken the bytes or the connection has failed.
//
// Errors:
// - The server's code and message. If there are several servers, ` (from ADDRESS)` follows. If a
//   message was sent several times, ` (tried N times)` follows.
// - UNAVAILABLE, with the address in the message, if there is no connection. Also UNAVAILABLE if
//   the connection broke because the memory of an input cannot be read. This happens if the input
//   is a mapped file that was cut short. The input may also be that of another call.
// - DEADLINE_EXCEEDED if the deadline passed.
// - INTERNAL if the server's answer does not match the request.
// - INVALID_ARGUMENT, before anything is sent, for what CheckForward or CheckBackward refuses.
// - RESOURCE_EXHAUSTED, before anything is sent, if the memory for a result cannot be allocated.
class Client {
 public:
  // Makes a client of the server at `address`: `HOST:PORT` or `unix:/path`, or several of these
  // with commas between them. Does not connect yet. The client ignores the proxies that the
  // environment names. INVALID_ARGUMENT if an address is malformed or there twice, or an option is
  // out of range.
  static absl::StatusOr<std::unique_ptr<Client>> Create(absl::string_view address,
                                                        const Options& options = {});

  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Returns h = SiLU(e) * g, with the dtype and the shape of the inputs.
  absl::StatusOr<Tensor> Forward(const TensorView& e, const TensorView& g,
                                 const CallOptions& options = {});

  // Returns h, and the gradients with respect to g and e. `dw` is the gradient with respect to h.
  absl::StatusOr<BackwardResult> Backward(const TensorView& dw, const TensorView& e,
                                          const TensorView& g, const CallOptions& options = {});

  // Like `Forward` and `Backward`, but write the results to the caller's memory. An output may be
  // the memory of an input, as in the in-place kernel: h over e in forward; h over dw, df over e,
  // de over g in backward. A partial overlap of an output with another tensor is not allowed. On
  // error the content of the outputs is unspecified. INVALID_ARGUMENT if the sizes of outputs and
  // inputs differ.
  absl::Status ForwardInto(const TensorView& e, const TensorView& g, absl::Span<std::byte> h,
                           const CallOptions& options = {});
  absl::Status BackwardInto(const TensorView& dw, const TensorView& e, const TensorView& g,
                            const BackwardOutputs& outputs, const CallOptions& options = {});

  // The same, but each tensor is in ordinary memory or in a region of shared memory
  // (shared_memory.h). Only tensors in ordinary memory count for the size of messages. All work on
  // the regions must have ended before the call. After the call has returned OK, the results are in
  // their places. INVALID_ARGUMENT also for a part that is not inside its region.
  absl::Status ForwardInto(const InputTensor& e, const InputTensor& g, const OutputTensor& h,
                           const CallOptions& options = {});
  absl::Status BackwardInto(const InputTensor& dw, const InputTensor& e, const InputTensor& g,
                            const BackwardOutputTensors& outputs, const CallOptions& options = {});

  // Layer `layer` of the MLP that the server calls `name`. Sends nothing. See client_mlp.h.
  client::Mlp Mlp(absl::string_view name, int layer);

  // Whether the server is live. It is live until one of its devices has failed for good.
  absl::StatusOr<bool> ServerLive(const CallOptions& options = {});
  // Whether the server takes requests.
  absl::StatusOr<bool> ServerReady(const CallOptions& options = {});
  // Whether the model exists and takes requests.
  absl::StatusOr<bool> ModelReady(absl::string_view model, const CallOptions& options = {});

  absl::StatusOr<ServerInfo> ServerMetadata(const CallOptions& options = {});
  // NOT_FOUND for a model that does not exist.
  absl::StatusOr<ModelInfo> ModelMetadata(absl::string_view model, const CallOptions& options = {});
  // All models of the server.
  absl::StatusOr<std::vector<ModelState>> ListModels(const CallOptions& options = {});
  // The counters of `model`, or of every model if `model` is empty.
  absl::StatusOr<std::vector<ModelCounters>> ModelStatistics(absl::string_view model,
                                                             const CallOptions& options = {});

  // Register a region under `name`. A system region is the first `size_bytes` bytes of the file
  // /dev/shm/KEY, where `key` is `/KEY`. A CUDA region is an allocation of a GPU: `handle` has the
  // 64 bytes of its cudaIpcMemHandle_t, and `device` is the server's ordinal of the GPU.
  // SystemRegion and CudaRegion call these methods. The default timeout is 30 s and 1 s more for
  // every 100 MB. UNIMPLEMENTED if the server has this kind of memory off, ALREADY_EXISTS if the
  // name is taken, FAILED_PRECONDITION if the client has several servers.
  absl::Status RegisterSystemRegion(absl::string_view name, absl::string_view key,
                                    int64_t size_bytes, const CallOptions& options = {});
  absl::Status RegisterCudaRegion(absl::string_view name, absl::string_view handle, int64_t device,
                                  int64_t size_bytes, const CallOptions& options = {});

  // Unregister a region, or all regions of a kind, those of other clients included. Requests that
  // already use a region go on. OK also if there is no such region. INVALID_ARGUMENT for an empty
  // name.
  absl::Status UnregisterRegion(RegionKind kind, absl::string_view name,
                                const CallOptions& options = {});
  absl::Status UnregisterAllRegions(RegionKind kind, const CallOptions& options = {});

  // The registered regions of that kind, sorted by name.
  absl::StatusOr<std::vector<RegionInfo>> ListRegions(RegionKind kind,
                                                      const CallOptions& options = {});

 private:
  class Impl;
  friend class client::Mlp;

  explicit Client(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace swiglu::client
