// SPDX-License-Identifier: Apache-2.0
//
// One region of shared memory for a load. Its memory is that of the host or that of a GPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "swiglu/client.h"
#include "swiglu/tensor_place.h"

namespace swiglu::bench {

// The region is registered at the server while this object lives. Thread-safe for stretches that do
// not overlap.
class SharedRegion {
 public:
  virtual ~SharedRegion() = default;

  // A stretch of the region, for a tensor of a call.
  virtual client::RegionPart Part(int64_t offset, int64_t size_bytes) const = 0;

  // Copy bytes into the region and out of it. Both block until the copy is done. REQUIRES: the
  // stretch is inside the region.
  virtual absl::Status Write(int64_t offset, absl::Span<const std::byte> bytes) = 0;
  virtual absl::Status Read(int64_t offset, absl::Span<std::byte> bytes) const = 0;
};

// A region of `size_bytes` bytes, registered at the server of `client`. `client` must outlive the
// region.
absl::StatusOr<std::unique_ptr<SharedRegion>> CreateSystemRegion(const client::Client& client,
                                                                 int64_t size_bytes);
// The same on the first GPU. UNIMPLEMENTED if the program is built without CUDA.
absl::StatusOr<std::unique_ptr<SharedRegion>> CreateCudaRegion(const client::Client& client,
                                                               int64_t size_bytes);

// Whether the program is built with CUDA.
extern const bool kHasCuda;

}  // namespace swiglu::bench
