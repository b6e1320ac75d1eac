// SPDX-License-Identifier: Apache-2.0
//
// Remembers allocations by the addresses that calls have used. Each time, the driver tells whether
// it is still the same allocation.
#include "client/python/gpu_memory.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "client/python/interruptible_connection.h"
#include "swiglu/cuda_shared_memory.h"

namespace swiglu::python {
namespace {

// Python has handles as numbers.
cudaStream_t AsStream(uintptr_t stream) {
  // NOLINTNEXTLINE(performance-no-int-to-ptr)
  return reinterpret_cast<cudaStream_t>(stream);
}

// A quarter of what a server takes by default.
constexpr size_t kMaxRegions = 256;

}  // namespace

// What is known of an allocation: the stretch of it that calls have used so far.
struct GpuMemory::Known {
  client::CudaRegion region;  // some part of the allocation
  int64_t offset;             // of the stretch in the allocation
  int64_t size_bytes;
  int64_t last_use;
};

struct GpuMemory::Allocations {
  explicit Allocations(int64_t its_server_device) : server_device(its_server_device) {}

  const int64_t server_device;
  absl::Mutex mutex;
  std::map<const std::byte*, Known> known ABSL_GUARDED_BY(mutex);  // by where the stretch begins
  int64_t num_uses ABSL_GUARDED_BY(mutex) = 0;
};

GpuMemory::GpuMemory(int64_t server_device)
    : allocations_(std::make_unique<Allocations>(server_device)) {}

GpuMemory::~GpuMemory() = default;

absl::optional<client::RegionPart> GpuMemory::Find(absl::Span<const std::byte> bytes) {
  const absl::MutexLock lock(&allocations_->mutex);
  auto place = allocations_->known.upper_bound(bytes.data());
  if (place == allocations_->known.begin()) return absl::nullopt;
  auto& [begin, known] = *--place;
  const auto offset = static_cast<int64_t>(bytes.data() - begin);
  const auto size_bytes = static_cast<int64_t>(bytes.size());
  // Other memory may have the address by now.
  if (offset + size_bytes > known.size_bytes || known.region.IsFreed()) return absl::nullopt;
  known.last_use = ++allocations_->num_uses;
  return client::RegionPart{known.region.name(), known.offset + known.size_bytes,
                            known.offset + offset, size_bytes};
}

absl::StatusOr<client::RegionPart> GpuMemory::Share(const client::Client& client,
                                                    absl::Span<const std::byte> bytes,
                                                    absl::Time deadline) {
  if (absl::optional<client::RegionPart> part = Find(bytes)) return *std::move(part);
  const auto size_bytes = static_cast<int64_t>(bytes.size());
  client::CudaRegionOptions options;
  options.server_device = allocations_->server_device;
  options.timeout = deadline - absl::Now();
  if (*options.timeout <= absl::ZeroDuration()) {
    return absl::DeadlineExceededError("no time is left to register memory of a GPU");
  }
  const absl::StatusOr<client::CudaRegion> region =
      client::CudaRegion::Create(client, bytes.data(), size_bytes, options);
  if (!region.ok()) return region.status();
  const client::RegionPart part = region->Part(0, size_bytes);
  // Unregistered without the lock, since that calls the server.
  const SignalsLater signals_later;
  const std::vector<Known> dropped = Note(bytes.data(), {*region, part.offset, size_bytes, 0});
  return part;
}

std::vector<GpuMemory::Known> GpuMemory::Note(const std::byte* begin, Known noted) {
  std::vector<Known> dropped;
  const absl::MutexLock lock(&allocations_->mutex);
  auto& all = allocations_->known;
  for (auto entry = all.begin(); entry != all.end();) {
    Known& known = entry->second;
    const bool is_same = known.region.name() == noted.region.name();
    if (!is_same && !known.region.IsFreed()) {
      ++entry;
      continue;
    }
    if (is_same) {
      // One stretch that has both.
      const int64_t first = std::min(known.offset, noted.offset);
      const int64_t end =
          std::max(known.offset + known.size_bytes, noted.offset + noted.size_bytes);
      begin -= noted.offset - first;
      noted.offset = first;
      noted.size_bytes = end - first;
    }
    dropped.push_back(std::move(known));
    entry = all.erase(entry);
  }
  if (all.size() >= kMaxRegions) {
    const auto oldest = std::min_element(all.begin(), all.end(), [](const auto& a, const auto& b) {
      return a.second.last_use < b.second.last_use;
    });
    dropped.push_back(std::move(oldest->second));
    all.erase(oldest);
  }
  noted.last_use = ++allocations_->num_uses;
  all.insert_or_assign(begin, std::move(noted));
  return dropped;
}

void GpuMemory::Forget(const std::string& name) {
  const SignalsLater signals_later;
  absl::optional<Known> dropped;
  const absl::MutexLock lock(&allocations_->mutex);
  auto& all = allocations_->known;
  const auto found = std::find_if(all.begin(), all.end(), [&name](const auto& entry) {
    return entry.second.region.name() == name;
  });
  if (found == all.end()) return;
  dropped = std::move(found->second);
  all.erase(found);
}

void GpuMemory::ForgetAll() {
  const SignalsLater signals_later;
  std::map<const std::byte*, Known> dropped;
  const absl::MutexLock lock(&allocations_->mutex);
  dropped.swap(allocations_->known);
}

absl::Status WaitForStream(int device, uintptr_t stream) {
  int current = device;
  cudaError_t error = cudaGetDevice(&current);
  if (error == cudaSuccess && current == device) {
    error = cudaStreamSynchronize(AsStream(stream));
  } else if (error == cudaSuccess) {
    // By a thread of its own. To set this thread's device back would make a context on that GPU,
    // which may be one that this process does not use.
    std::thread([&] {
      error = cudaSetDevice(device);
      if (error == cudaSuccess) error = cudaStreamSynchronize(AsStream(stream));
    }).join();
  }
  if (error == cudaSuccess) return absl::OkStatus();
  // The caller's own next question must not get our error.
  cudaGetLastError();
  return absl::InternalError(absl::StrCat("cannot wait for the work of GPU ", device, ": ",
                                          cudaGetErrorName(error), ": ",
                                          cudaGetErrorString(error)));
}

}  // namespace swiglu::python
