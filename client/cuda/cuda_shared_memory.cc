// SPDX-License-Identifier: Apache-2.0
//
// Finds allocations, exports them, and keeps what is registered by the driver's id of it.
#include "swiglu/cuda_shared_memory.h"

#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>
#include <sys/random.h>

#include <iterator>
#include <map>
#include <thread>
#include <tuple>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace swiglu::client {
namespace {

constexpr absl::Duration kUnregisterTimeout = absl::Seconds(2);

// How long nothing more is unregistered at a server that did not answer.
constexpr absl::Duration kSilence = absl::Seconds(10);

// The oldest toolkit that the library is built with. The driver gives the forms of its functions
// that this version had.
constexpr unsigned kCudaVersion = 12080;

absl::Status Failed(absl::string_view step, cudaError_t error) {
  // The caller's own next question must not get our error.
  cudaGetLastError();
  return absl::InternalError(absl::StrCat("cannot ", step, ": ", cudaGetErrorName(error), ": ",
                                          cudaGetErrorString(error)));
}

absl::Status Unshareable(absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("the memory cannot be shared: ", why));
}

// A function of the driver, which the library does not link.
template <typename Function>
absl::Status Find(const char* name, Function* function) {
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t error = cudaGetDriverEntryPointByVersion(
      name, reinterpret_cast<void**>(function), kCudaVersion, cudaEnableDefault, &found);
  if (error != cudaSuccess) return Failed(absl::StrCat("find ", name, " of the driver"), error);
  if (found == cudaDriverEntryPointSuccess) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("the driver has no ", name));
}

// The functions of the driver that are needed.
struct Driver {
  PFN_cuPointerGetAttribute_v4000 get_attribute = nullptr;
  PFN_cuMemGetAddressRange_v3020 get_range = nullptr;

  // Looks for them once.
  static const absl::StatusOr<Driver>& Get() {
    static const auto& driver = *new absl::StatusOr<Driver>(Look());
    return driver;
  }

 private:
  static absl::StatusOr<Driver> Look() {
    Driver driver;
    absl::Status status = Find("cuPointerGetAttribute", &driver.get_attribute);
    if (status.ok()) status = Find("cuMemGetAddressRange", &driver.get_range);
    if (!status.ok()) return status;
    return driver;
  }
};

// Runs `work` on a thread whose current device is `device`: on this one, if it is that already. To
// set this thread's device back would make a context on that GPU, which may be one that this
// process does not use.
template <typename Work>
auto OnDevice(int device, const Work& work) {
  int current = device;
  if (cudaGetDevice(&current) != cudaSuccess || current == device) return work();
  absl::optional<decltype(work())> result;
  std::thread([&] {
    cudaSetDevice(device);
    result.emplace(work());
  }).join();
  return *std::move(result);
}

// What CUDA knows about the memory at an address.
struct Allocation {
  uint64_t id = 0;  // of no other allocation that this process ever makes
  CUdeviceptr d_base = 0;
  size_t size_bytes = 0;
  int device = 0;
};

// Whether CUDA has `allocation` no longer, or other memory at its address.
bool IsGone(const Allocation& allocation) {
  const absl::StatusOr<Driver>& driver = Driver::Get();
  if (!driver.ok()) return true;
  uint64_t id = 0;
  return driver->get_attribute(&id, CU_POINTER_ATTRIBUTE_BUFFER_ID, allocation.d_base) !=
             CUDA_SUCCESS ||
         id != allocation.id;
}

// The allocation of a device that holds `d_bytes`, if it can be shared. The device is the current
// one.
absl::StatusOr<Allocation> FindAllocationOf(int device, const void* d_bytes) {
  const absl::StatusOr<Driver>& driver = Driver::Get();
  if (!driver.ok()) return driver.status();
  const auto address = reinterpret_cast<CUdeviceptr>(d_bytes);
  CUmemoryPool pool = nullptr;
  if (driver->get_attribute(&pool, CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, address) == CUDA_SUCCESS &&
      pool != nullptr) {
    return Unshareable("it is of a memory pool, as that of cudaMallocAsync is");
  }
  int is_capable = 0;
  if (driver->get_attribute(&is_capable, CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE,
                            address) != CUDA_SUCCESS ||
      is_capable == 0) {
    return Unshareable(
        "it is not of cudaMalloc but, for example, of PyTorch's expandable segments");
  }
  Allocation allocation;
  allocation.device = device;
  if (driver->get_attribute(&allocation.id, CU_POINTER_ATTRIBUTE_BUFFER_ID, address) !=
          CUDA_SUCCESS ||
      driver->get_range(&allocation.d_base, &allocation.size_bytes, address) != CUDA_SUCCESS) {
    return absl::InternalError("cannot find the allocation that the memory is of");
  }
  return allocation;
}

absl::StatusOr<Allocation> FindAllocation(const void* d_bytes) {
  cudaPointerAttributes attributes = {};
  const cudaError_t error = cudaPointerGetAttributes(&attributes, d_bytes);
  if (error != cudaSuccess) return Failed("look at the memory", error);
  if (attributes.type != cudaMemoryTypeDevice) return Unshareable("it is not memory of a GPU");
  return OnDevice(attributes.device, [&] { return FindAllocationOf(attributes.device, d_bytes); });
}

// A name that no other client has.
absl::StatusOr<std::string> MakeName() {
  char secret[16];
  if (getrandom(secret, sizeof(secret), 0) != sizeof(secret)) {
    return absl::InternalError("the system gives no random bytes");
  }
  return absl::StrCat("swiglu-", absl::BytesToHexString(absl::string_view(secret, sizeof(secret))));
}

// The servers that did not answer lately when something was unregistered. Without it, a client with
// many allocations would wait for such a server as often as it has allocations. Thread-safe.
class SilentServers {
 public:
  static SilentServers& OfProcess() {
    static auto& servers = *new SilentServers();
    return servers;
  }

  bool Has(const std::shared_ptr<Connection>& connection) {
    absl::MutexLock lock(&mutex_);
    const auto found = since_.find(connection);
    return found != since_.end() && absl::Now() < found->second + kSilence;
  }

  void Add(const std::shared_ptr<Connection>& connection) {
    absl::MutexLock lock(&mutex_);
    for (auto entry = since_.begin(); entry != since_.end();) {
      entry = entry->first.expired() ? since_.erase(entry) : std::next(entry);
    }
    since_[connection] = absl::Now();
  }

 private:
  absl::Mutex mutex_;
  std::map<std::weak_ptr<Connection>, absl::Time, std::owner_less<>> since_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

// An allocation that is registered at the server of a client, or is about to be.
class CudaRegion::Registration {
 public:
  Registration(const Client& client, const Allocation& allocation)
      : client_(client), allocation_(allocation) {}
  ~Registration() {
    SilentServers& silent = SilentServers::OfProcess();
    if (name_.empty() || silent.Has(client_.connection())) return;
    const absl::Status status =
        client_.UnregisterRegion(RegionKind::kCuda, name_, {.timeout = kUnregisterTimeout});
    if (absl::IsDeadlineExceeded(status) || absl::IsUnavailable(status)) {
      silent.Add(client_.connection());
    }
  }
  Registration(const Registration&) = delete;
  Registration& operator=(const Registration&) = delete;

  // Registers the allocation when first called; gives the outcome of that. Threads wait for it.
  absl::Status Register(const CudaRegionOptions& options) {
    absl::MutexLock lock(&mutex_);
    if (!outcome_) outcome_ = RegisterNow(options);
    return *outcome_;
  }

  bool IsFreed() const { return IsGone(allocation_); }

  // REQUIRES: registered.
  const std::string& name() const { return name_; }

 private:
  absl::Status RegisterNow(const CudaRegionOptions& options) {
    cudaIpcMemHandle_t handle;
    // The driver has addresses as numbers.
    // NOLINTNEXTLINE(performance-no-int-to-ptr)
    void* const d_base = reinterpret_cast<void*>(allocation_.d_base);
    const cudaError_t error =
        OnDevice(allocation_.device, [&] { return cudaIpcGetMemHandle(&handle, d_base); });
    if (error != cudaSuccess) return Failed("share the allocation", error);
    absl::StatusOr<std::string> name = MakeName();
    if (!name.ok()) return name.status();
    name_ = *std::move(name);
    return client_.RegisterCudaRegion(
        name_, absl::string_view(reinterpret_cast<const char*>(&handle), sizeof(handle)),
        options.server_device >= 0 ? options.server_device : allocation_.device,
        static_cast<int64_t>(allocation_.size_bytes), {.timeout = options.timeout});
  }

  const Client client_;
  const Allocation allocation_;
  absl::Mutex mutex_;
  absl::optional<absl::Status> outcome_ ABSL_GUARDED_BY(mutex_);
  std::string name_;  // empty: the server cannot know it
};

// The registrations of this process, each as long as a region uses it. An address is no key: the
// next allocation may have it, too.
class CudaRegion::Registrations {
 public:
  static Registrations& OfProcess() {
    static auto& registrations = *new Registrations();
    return registrations;
  }

  // The registration of that allocation, new if there is none.
  std::shared_ptr<Registration> Take(const Client& client, int64_t server_device,
                                     const Allocation& allocation) {
    absl::MutexLock lock(&mutex_);
    for (auto entry = entries_.begin(); entry != entries_.end();) {
      entry = entry->second.expired() ? entries_.erase(entry) : std::next(entry);
    }
    // A registration keeps its connection, so no other one has its address while it lives.
    std::weak_ptr<Registration>& entry =
        entries_[{client.connection().get(), server_device, allocation.id}];
    std::shared_ptr<Registration> registration = entry.lock();
    if (registration == nullptr) {
      registration = std::make_shared<Registration>(client, allocation);
      entry = registration;
    }
    return registration;
  }

 private:
  absl::Mutex mutex_;
  std::map<std::tuple<const Connection*, int64_t, uint64_t>, std::weak_ptr<Registration>> entries_
      ABSL_GUARDED_BY(mutex_);
};

absl::StatusOr<CudaRegion> CudaRegion::Create(const Client& client, const void* d_bytes,
                                              int64_t size_bytes,
                                              const CudaRegionOptions& options) {
  if (size_bytes < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("a region has 1 byte or more, not ", size_bytes));
  }
  const absl::StatusOr<Allocation> allocation = FindAllocation(d_bytes);
  if (!allocation.ok()) return allocation.status();
  const auto offset =
      static_cast<int64_t>(reinterpret_cast<CUdeviceptr>(d_bytes) - allocation->d_base);
  const int64_t num_left = static_cast<int64_t>(allocation->size_bytes) - offset;
  if (size_bytes > num_left) {
    return absl::InvalidArgumentError(
        absl::StrCat("the allocation ends after ", num_left, " bytes, not ", size_bytes));
  }
  std::shared_ptr<Registration> registration =
      Registrations::OfProcess().Take(client, options.server_device, *allocation);
  const absl::Status status = registration->Register(options);
  if (!status.ok()) return status;
  return CudaRegion(std::move(registration), offset, size_bytes);
}

const std::string& CudaRegion::name() const { return registration_->name(); }

bool CudaRegion::IsFreed() const { return registration_->IsFreed(); }

RegionPart CudaRegion::Part(int64_t offset, int64_t size_bytes) const {
  // The end of the stretch is the end of what may be used.
  return {name(), offset_ + size_bytes_, offset < 0 ? offset : offset_ + offset, size_bytes};
}

}  // namespace swiglu::client
