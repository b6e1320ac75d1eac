// SPDX-License-Identifier: Apache-2.0
//
// The memory of GPUs that calls use. The server works on it where it lies, as CUDA regions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "swiglu/client.h"
#include "swiglu/tensor_place.h"

namespace swiglu::python {

// Registers allocations at the server of a client when calls first use them, and remembers them:
// the last 256 that were used. Thread-safe. Each function may block, and none may have the GIL.
class GpuMemory {
 public:
  // `server_device` is the server's ordinal of the GPU, or -1: the ordinals of both processes are
  // the same.
  explicit GpuMemory(int64_t server_device);
  ~GpuMemory();
  GpuMemory(const GpuMemory&) = delete;
  GpuMemory& operator=(const GpuMemory&) = delete;

  // Where these bytes of a GPU lie in a region of the server. Fails as CudaRegion::Create does, and
  // with UNIMPLEMENTED in a build without CUDA. Unregisters allocations that have been freed when
  // it registers a new one. DEADLINE_EXCEEDED if a registration has not ended at `deadline`.
  absl::StatusOr<client::RegionPart> Share(const client::Client& client,
                                           absl::Span<const std::byte> bytes, absl::Time deadline);

  // Unregisters the region with that name.
  void Forget(const std::string& name);

  // Unregisters all regions. A call that is on its way to the server may then be NOT_FOUND.
  void ForgetAll();

 private:
  struct Known;
  struct Allocations;

  absl::optional<client::RegionPart> Find(absl::Span<const std::byte> bytes);
  // Notes that an allocation is used from `begin` on. Returns what was taken out for it:
  // allocations that have been freed, and the one that was not used for longest if there are too
  // many.
  std::vector<Known> Note(const std::byte* begin, Known noted);

  const std::unique_ptr<Allocations> allocations_;
};

// Waits for the work that a stream of a GPU has. `stream` is a handle of CUDA.
absl::Status WaitForStream(int device, uintptr_t stream);

}  // namespace swiglu::python
