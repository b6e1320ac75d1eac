// SPDX-License-Identifier: Apache-2.0
//
// Memory of a GPU that the client and a server on the same host share: the server's kernels read
// and write the client's own tensors there. This header belongs to the target
// `swiglu::client_cuda`, which exists if the package is built with CUDA. An example:
//
//   auto region = CudaRegion::Create(*client, d_tensors, 3 * 16'000);
//   client->ForwardInto({Dtype::kFp32, {4, 1000}, region->Part(0, 16'000)},
//                       {Dtype::kFp32, {4, 1000}, region->Part(16'000, 16'000)},
//                       region->Part(32'000, 16'000));
//
// The server needs --cuda_shared_memory=on.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "swiglu/client.h"
#include "swiglu/tensor_place.h"

namespace swiglu::client {

// How a region of GPU memory is registered.
struct CudaRegionOptions {
  // The server's ordinal of the GPU. Default -1: the ordinal that this process has for it. The two
  // ordinals differ if CUDA_VISIBLE_DEVICES differs.
  int64_t server_device = -1;

  // Time for the registration, above 0. Default: 30 s and 1 s more for every 100 MB.
  absl::optional<absl::Duration> timeout = absl::nullopt;
};

// A stretch of device memory that belongs to the caller. CUDA shares only whole allocations, such
// as a block of a caching allocator. So the client registers the whole allocation in which the
// stretch lies. All regions that the client and its copies have in this allocation share one
// registration. When the last of these regions is destroyed, the client unregisters the allocation,
// which takes 2 s at most. If the server does not answer, the client unregisters nothing more there
// for 10 s. A region can be copied; copies share the registration. Thread-safe.
//
// Memory must not be freed while it is registered or a call uses it. CUDA work on a tensor must
// have ended before the call (synchronize its stream). The results are visible to all work that
// begins after the call has returned.
class CudaRegion {
 public:
  // The `size_bytes` bytes, 1 or more, at `d_bytes`. The region has a copy of `client`. Blocks
  // until the server has registered the allocation. An error leaves nothing behind:
  // - INVALID_ARGUMENT if the memory is not of a GPU, if the allocation ends before these bytes do,
  //   or if CUDA cannot share the memory; CUDA cannot share memory of cudaMallocAsync or of virtual
  //   memory management, such as PyTorch's expandable segments
  // - INTERNAL, with the name of CUDA's error, if CUDA fails
  // - the server's own errors, for example UNIMPLEMENTED if it takes no CUDA shared memory
  static absl::StatusOr<CudaRegion> Create(const Client& client, const void* d_bytes,
                                           int64_t size_bytes,
                                           const CudaRegionOptions& options = {});

  // The allocation's name at the server.
  const std::string& name() const;
  int64_t size_bytes() const { return size_bytes_; }

  // Whether the allocation has been freed since it was registered, which it should not be. New
  // memory may have its address, but calls with this region still mean the old memory.
  bool IsFreed() const;

  // Bytes [offset, offset + size_bytes) of the stretch, for a tensor of a call. The call checks
  // that they are inside.
  RegionPart Part(int64_t offset, int64_t size_bytes) const;

 private:
  class Registration;
  class Registrations;

  CudaRegion(std::shared_ptr<const Registration> registration, int64_t offset, int64_t size_bytes)
      : registration_(std::move(registration)), offset_(offset), size_bytes_(size_bytes) {}

  std::shared_ptr<const Registration> registration_;
  int64_t offset_;  // of the stretch in the allocation
  int64_t size_bytes_;
};

}  // namespace swiglu::client
