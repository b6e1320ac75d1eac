// SPDX-License-Identifier: Apache-2.0
//
// Checks, then time limits, then InferRunner, which sends and splits the operations.
#include "client/client_impl.h"

#include <new>

#include "proto/inference.pb.h"

namespace swiglu::client {
namespace {

// The bytes of all tensors of a call, those of its results too.
int64_t TotalBytes(const InferCall& call) {
  int64_t total_bytes = 0;
  for (const InferCall::Input& input : call.inputs) total_bytes += input.tensor->size_bytes();
  for (const InferCall::Output& output : call.outputs) total_bytes += output.tensor->size_bytes();
  return total_bytes;
}

}  // namespace

absl::Status MakeTensor(absl::string_view name, Dtype dtype, Shape shape, Tensor* tensor) {
  const int64_t size_bytes = TensorBytes(name, dtype, shape).value();
  try {
    *tensor = Tensor(dtype, std::move(shape), size_bytes);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for output '", name, "': ", size_bytes, " bytes"));
  }
  return absl::OkStatus();
}

Client::Impl::Impl(const std::vector<std::string>& addresses, const Options& options)
    : options_(options),
      pool_(addresses, options.num_connections, options.spin ? Wait::kSpin : Wait::kSleep),
      runner_(options, &pool_) {}

absl::StatusOr<std::string> Client::Impl::Infer(const InferCall& call,
                                                const CallOptions& call_options) {
  absl::Status status = CheckInputs(call);
  if (status.ok()) status = CheckOutputs(call);
  if (status.ok() && UsesRegions(call)) status = CheckRegionsAllowed();
  if (!status.ok()) return status;
  return runner_.Run(ToInference(call), TimeLimit(Timeout(TotalBytes(call), call_options)),
                     call_options.on_chunk);
}

absl::Status Client::Impl::CheckRegionsAllowed() const {
  if (pool_.num_servers() == 1) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("this client has ", pool_.num_servers(),
                   " servers; a client that uses regions of shared memory has one"));
}

absl::Status Client::Impl::Unregister(RegionKind kind, absl::string_view name,
                                      const CallOptions& call_options) {
  if (absl::Status status = CheckRegionsAllowed(); !status.ok()) return status;
  if (kind == RegionKind::kSystem) {
    inference::SystemSharedMemoryUnregisterRequest request;
    request.set_name(std::string(name));
    return Control<inference::SystemSharedMemoryUnregisterResponse>("SystemSharedMemoryUnregister",
                                                                    request, call_options)
        .status();
  }
  inference::CudaSharedMemoryUnregisterRequest request;
  request.set_name(std::string(name));
  return Control<inference::CudaSharedMemoryUnregisterResponse>("CudaSharedMemoryUnregister",
                                                                request, call_options)
      .status();
}

absl::Duration Client::Impl::Timeout(int64_t num_bytes, const CallOptions& call_options) const {
  if (call_options.timeout) return *call_options.timeout;
  if (options_.timeout > absl::ZeroDuration()) return options_.timeout;
  return kBaseTimeout + kTimeoutPerByte * num_bytes;
}

}  // namespace swiglu::client
