// SPDX-License-Identifier: Apache-2.0
//
// The rival: a backend of NVIDIA Triton Inference Server with SwiGLU forward in FP16, as a careful
// user of Triton would write it: a stream for each instance, and no copy of a tensor that lies in
// GPU memory. It computes with the kernel of this project, so that what is compared is serving
// alone. Instances of kind CPU answer without looking at the data and need no GPU: that is Triton's
// wire by itself. A yardstick: nobody tunes it.
#include <cuda_runtime_api.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "swiglu/cuda.h"
#include "tests/bench/rival/triton_api.h"

namespace swiglu::bench {
namespace {

uint64_t NowNs() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

TRITONSERVER_Error* InvalidArgument(const char* message) {
  return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INVALID_ARG, message);
}

TRITONSERVER_Error* ToError(cudaError_t error) {
  if (error == cudaSuccess) return nullptr;
  return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INTERNAL, cudaGetErrorString(error));
}

// Where Triton has put a tensor, or wants it.
struct Place {
  void* data = nullptr;
  TRITONSERVER_MemoryType memory_type = TRITONSERVER_MEMORY_GPU;

  bool IsOnDevice() const { return memory_type == TRITONSERVER_MEMORY_GPU; }
};

struct Input {
  Place place;
  uint64_t size_bytes = 0;
  const int64_t* shape = nullptr;
  uint32_t rank = 0;
};

TRITONSERVER_Error* ReadInput(TRITONBACKEND_Request* request, const char* name, Input& input) {
  TRITONBACKEND_Input* handle = nullptr;
  if (auto* error = TRITONBACKEND_RequestInput(request, name, &handle)) return error;
  const char* own_name = nullptr;
  TRITONSERVER_DataType datatype{};
  uint32_t num_buffers = 0;
  if (auto* error = TRITONBACKEND_InputProperties(handle, &own_name, &datatype, &input.shape,
                                                  &input.rank, &input.size_bytes, &num_buffers)) {
    return error;
  }
  if (num_buffers != 1) return InvalidArgument("an input does not lie in one buffer");
  const void* data = nullptr;
  int64_t memory_id = 0;
  if (auto* error = TRITONBACKEND_InputBuffer(handle, 0, &data, &input.size_bytes,
                                              &input.place.memory_type, &memory_id)) {
    return error;
  }
  input.place.data = const_cast<void*>(data);
  return nullptr;
}

// Adds the output h, of the shape of `like`.
TRITONSERVER_Error* MakeOutput(TRITONBACKEND_Response* response, const Input& like, Place& h) {
  TRITONBACKEND_Output* handle = nullptr;
  if (auto* error = TRITONBACKEND_ResponseOutput(response, &handle, "h", TRITONSERVER_TYPE_FP16,
                                                 like.shape, like.rank)) {
    return error;
  }
  int64_t memory_id = 0;
  return TRITONBACKEND_OutputBuffer(handle, &h.data, like.size_bytes, &h.memory_type, &memory_id);
}

// The GPU's side of an instance: a stream, and a buffer for tensors that come from the host, which
// grows to the largest request.
class Lane {
 public:
  Lane() = default;
  ~Lane() {
    cudaFree(d_buffer_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  cudaError_t Open() { return cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking); }

  // Computes h from e and g, of `size_bytes` each, and waits for it.
  cudaError_t Forward(const Place& e, const Place& g, const Place& h, uint64_t size_bytes) {
    const size_t slot_bytes = (size_bytes + 255) / 256 * 256;
    cudaError_t error = Reserve(3 * slot_bytes);
    void *d_e = nullptr, *d_g = nullptr;
    void* const d_h = h.IsOnDevice() ? h.data : d_buffer_ + 2 * slot_bytes;
    if (error == cudaSuccess) error = CopyIn(e, size_bytes, d_buffer_, &d_e);
    if (error == cudaSuccess) error = CopyIn(g, size_bytes, d_buffer_ + slot_bytes, &d_g);
    if (error == cudaSuccess) {
      const auto num_elements = static_cast<int64_t>(size_bytes / ElementBytes(Dtype::kFp16));
      const ForwardSegment segment{d_e, d_g, d_h, num_elements};
      error = ForwardCuda(Dtype::kFp16, {&segment, 1}, {}, stream_);
    }
    if (error == cudaSuccess && !h.IsOnDevice()) {
      error = cudaMemcpyAsync(h.data, d_h, size_bytes, cudaMemcpyDeviceToHost, stream_);
    }
    // Also after an error: what has been enqueued uses the request's memory.
    const cudaError_t done = cudaStreamSynchronize(stream_);
    return error == cudaSuccess ? done : error;
  }

 private:
  cudaError_t Reserve(size_t size_bytes) {
    if (size_bytes <= buffer_bytes_) return cudaSuccess;
    cudaFree(std::exchange(d_buffer_, nullptr));
    buffer_bytes_ = 0;
    const cudaError_t error = cudaMalloc(reinterpret_cast<void**>(&d_buffer_), size_bytes);
    if (error == cudaSuccess) buffer_bytes_ = size_bytes;
    return error;
  }

  // Sets `d_data` to where the tensor is on the device: where it lies, or a copy at `d_slot`.
  cudaError_t CopyIn(const Place& from, uint64_t size_bytes, std::byte* d_slot, void** d_data) {
    *d_data = from.IsOnDevice() ? from.data : d_slot;
    if (from.IsOnDevice()) return cudaSuccess;
    return cudaMemcpyAsync(d_slot, from.data, size_bytes, cudaMemcpyHostToDevice, stream_);
  }

  cudaStream_t stream_ = nullptr;
  std::byte* d_buffer_ = nullptr;
  size_t buffer_bytes_ = 0;
};

// Fills the response; on an error the response is sent with that. Without a lane the bytes of h are
// whatever they were.
TRITONSERVER_Error* Fill(Lane* lane, TRITONBACKEND_Request* request,
                         TRITONBACKEND_Response* response) {
  Input e, g;
  Place h;
  if (auto* error = ReadInput(request, "e", e)) return error;
  if (auto* error = ReadInput(request, "g", g)) return error;
  if (e.size_bytes != g.size_bytes) return InvalidArgument("e and g differ in size");
  if (auto* error = MakeOutput(response, e, h)) return error;
  if (lane == nullptr) return nullptr;
  return ToError(lane->Forward(e.place, g.place, h, e.size_bytes));
}

// Deletes what a call whose failure changes nothing may have returned.
void Ignore(TRITONSERVER_Error* error) {
  if (error != nullptr) TRITONSERVER_ErrorDelete(error);
}

// Answers a request and gives it back.
void Answer(TRITONBACKEND_ModelInstance* instance, Lane* lane, TRITONBACKEND_Request* request) {
  const uint64_t start_ns = NowNs();
  TRITONBACKEND_Response* response = nullptr;
  TRITONSERVER_Error* error = TRITONBACKEND_ResponseNew(&response, request);
  if (error == nullptr) error = Fill(lane, request, response);
  const uint64_t end_ns = NowNs();
  Ignore(TRITONBACKEND_ModelInstanceReportStatistics(instance, request, error == nullptr, start_ns,
                                                     start_ns, end_ns, end_ns));
  Ignore(TRITONBACKEND_ModelInstanceReportBatchStatistics(instance, 1, start_ns, start_ns, end_ns,
                                                          end_ns));
  if (response != nullptr) {
    Ignore(TRITONBACKEND_ResponseSend(response, TRITONSERVER_RESPONSE_COMPLETE_FINAL, error));
  }
  Ignore(error);
  Ignore(TRITONBACKEND_RequestRelease(request, TRITONSERVER_REQUEST_RELEASE_ALL));
}

// The lane that Triton keeps for an instance, null if its kind is CPU.
TRITONSERVER_Error* LaneOf(TRITONBACKEND_ModelInstance* instance, Lane*& lane) {
  void* state = nullptr;
  TRITONSERVER_Error* const error = TRITONBACKEND_ModelInstanceState(instance, &state);
  lane = static_cast<Lane*>(state);
  return error;
}

}  // namespace
}  // namespace swiglu::bench

using swiglu::bench::Lane;

TRITONSERVER_Error* TRITONBACKEND_ModelInstanceInitialize(TRITONBACKEND_ModelInstance* instance) {
  TRITONSERVER_InstanceGroupKind kind{};
  if (auto* error = TRITONBACKEND_ModelInstanceKind(instance, &kind)) return error;
  if (kind == TRITONSERVER_INSTANCEGROUPKIND_CPU) return nullptr;
  auto lane = std::make_unique<Lane>();
  if (auto* error = swiglu::bench::ToError(lane->Open())) return error;
  if (auto* error = TRITONBACKEND_ModelInstanceSetState(instance, lane.get())) return error;
  static_cast<void>(lane.release());  // ModelInstanceFinalize deletes it
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_ModelInstanceFinalize(TRITONBACKEND_ModelInstance* instance) {
  Lane* lane = nullptr;
  if (auto* error = swiglu::bench::LaneOf(instance, lane)) return error;
  delete lane;
  return nullptr;
}

TRITONSERVER_Error* TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance* instance,
                                                       TRITONBACKEND_Request** requests,
                                                       uint32_t num_requests) {
  Lane* lane = nullptr;
  if (auto* error = swiglu::bench::LaneOf(instance, lane)) return error;
  for (uint32_t k = 0; k < num_requests; ++k) swiglu::bench::Answer(instance, lane, requests[k]);
  return nullptr;
}
