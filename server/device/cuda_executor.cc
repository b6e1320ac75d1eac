// SPDX-License-Identifier: Apache-2.0
//
// Choice of lanes, errors and warm-up; the lanes do the work.
#include "server/device/cuda_executor.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/notification.h"
#include "server/device/cuda_handles.h"
#include "server/device/cuda_status.h"
#include "server/device/pinned_memory.h"
#include "server/log/log.h"
#include "swiglu/cuda.h"

namespace swiglu::server {
namespace {

// Bytes that a batch reads and writes.
int64_t BatchBytes(const Batch& batch) {
  const Model& model = GetModel(batch.op, batch.dtype);
  int64_t num_elements = 0;
  for (const Segment& segment : batch.segments) num_elements += segment.num_elements;
  return num_elements * ElementBytes(batch.dtype) *
         static_cast<int64_t>(model.inputs.size() + model.outputs.size());
}

// Slabs to have ready before the first request: two of every class up to 16 MiB, in a quarter of
// the pool at most.
std::vector<size_t> FirstSlabs(size_t capacity_bytes) {
  constexpr size_t kLargest = size_t{16} << 20;
  std::vector<size_t> sizes;
  size_t total_bytes = 0;
  for (int size_class = 0; SizeClassBytes(size_class) <= kLargest; ++size_class) {
    total_bytes += 2 * SizeClassBytes(size_class);
    if (total_bytes > capacity_bytes / 4) break;
    sizes.insert(sizes.end(), 2, SizeClassBytes(size_class));
  }
  return sizes;
}

// What a device computes in about 0.1 ms, the bus being its limit.
constexpr int64_t kMaxBatchBytes = int64_t{4} << 20;

// The tensors of a warm-up batch: a slot for each in one slab, inputs first.
constexpr size_t kWarmUpSlotBytes = 4096;
constexpr int64_t kWarmUpElements =
    1001;  // fits a slot in any dtype, and is no multiple of a vector

// An aligned segment and, behind it, one that is aligned to its elements alone.
Batch MakeWarmUpBatch(const Model& model, std::byte* slab) {
  Batch batch{model.op, model.dtype, std::vector<Segment>(2)};
  for (size_t i = 0; i < batch.segments.size(); ++i) {
    Segment& segment = batch.segments[i];
    std::byte* slot = slab + i * 2 * kMaxTensors * kWarmUpSlotBytes;
    if (i == 1) slot += ElementBytes(model.dtype);
    for (size_t k = 0; k < model.inputs.size(); ++k) {
      segment.inputs[k] = slot + k * kWarmUpSlotBytes;
    }
    for (size_t k = 0; k < model.outputs.size(); ++k) {
      segment.outputs[k] = slot + (kMaxTensors + k) * kWarmUpSlotBytes;
    }
    segment.num_elements = kWarmUpElements;
  }
  return batch;
}
constexpr size_t kWarmUpSlabBytes = (2 * 2 * kMaxTensors + 1) * kWarmUpSlotBytes;

bool AllZero(const std::byte* data, size_t size_bytes) {
  return std::all_of(data, data + size_bytes, [](std::byte b) { return b == std::byte{0}; });
}

// Zeros in give zeros out, for every operation and output.
bool WroteZeros(const Model& model, const Batch& batch) {
  for (const Segment& segment : batch.segments) {
    const size_t size_bytes = segment.num_elements * ElementBytes(model.dtype);
    for (size_t k = 0; k < model.outputs.size(); ++k) {
      if (!AllZero(segment.outputs[k], size_bytes)) return false;
    }
  }
  return true;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaExecutor>> CudaExecutor::Create(CudaExecutorOptions options) {
  if (options.devices.empty()) return absl::InvalidArgumentError("no CUDA device was named");
  if (options.lanes_per_device < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("a device needs at least 1 lane, not ", options.lanes_per_device));
  }
  std::unique_ptr<CudaExecutor> executor(new CudaExecutor(std::move(options)));
  if (absl::Status status = executor->SetUp(); !status.ok()) return status;
  return executor;
}

CudaExecutor::CudaExecutor(CudaExecutorOptions options)
    : options_(std::move(options)),
      num_lanes_(static_cast<int>(options_.devices.size()) * options_.lanes_per_device),
      slab_pool_(MakePinnedMemory(options_.devices.front().ordinal), options_.memory),
      loads_(options_.devices.size()),
      free_lanes_(options_.devices.size()) {}

CudaExecutor::~CudaExecutor() {
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return num_held_ == 0; };
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&idle));
}

int CudaExecutor::max_segments() const { return swiglu::kMaxSegments; }

int64_t CudaExecutor::max_batch_bytes() const { return kMaxBatchBytes; }

std::string CudaExecutor::description() const {
  return absl::StrJoin(options_.devices, ", ", [](std::string* out, const DeviceInfo& device) {
    absl::StrAppend(out, "cuda:", device.ordinal, " ", device.name);
  });
}

// ---- Batches ----

void CudaExecutor::Run(const Batch& batch, Done done) {
  if (const int failed = failed_ordinal_.load(); failed != kNoDevice) {
    Execution execution;
    execution.status = absl::InternalError(absl::StrCat("device ", failed, " failed"));
    execution.path = Path::kMapped;
    done(execution);
    return;
  }
  const Claim claim = ClaimLane(BatchBytes(batch));
  claim.lane->Run(
      batch, [this, claim, done = std::move(done)](const CudaLane::Result& result) mutable {
        const Execution execution = Complete(options_.devices[claim.device].ordinal, result);
        // The lane counts as free before `done`, which may bring the next batch.
        ReleaseLane(claim);
        done(execution);
        done = nullptr;
        absl::MutexLock lock(&mutex_);
        --num_held_;
      });
}

CudaExecutor::Claim CudaExecutor::ClaimLane(int64_t bytes) {
  absl::MutexLock lock(&mutex_);
  const int device = ChooseDevice(loads_);
  CHECK(device >= 0);
  CudaLane* lane = free_lanes_[device].front();
  free_lanes_[device].pop_front();
  --loads_[device].num_free_lanes;
  loads_[device].outstanding_bytes += bytes;
  ++num_held_;
  return {device, lane, bytes};
}

void CudaExecutor::ReleaseLane(const Claim& claim) {
  absl::MutexLock lock(&mutex_);
  // Behind the others: this one's thread is about to call `done`.
  free_lanes_[claim.device].push_back(claim.lane);
  ++loads_[claim.device].num_free_lanes;
  loads_[claim.device].outstanding_bytes -= claim.bytes;
}

Execution CudaExecutor::Complete(int ordinal, const CudaLane::Result& result) {
  if (result.error != cudaSuccess) ReportError(ordinal, result.error);
  Execution execution;
  execution.status = CudaStatus(result.error, ordinal);
  execution.path = Path::kMapped;
  execution.compute = result.compute;
  return execution;
}

void CudaExecutor::ReportError(int ordinal, cudaError_t error) {
  const DeviceError kind = ClassifyCudaError(error);
  if (kind == DeviceError::kSticky) {
    // Batches that were in flight beside the one that broke the device say the same once more.
    int none = kNoDevice;
    if (!failed_ordinal_.compare_exchange_strong(none, ordinal)) return;
    LOG(ERROR, "device {} failed for good: {}", ordinal, DescribeCudaError(error));
  } else {
    LOG_EVERY(ERROR, std::chrono::seconds(1), "device {}: {}", ordinal, DescribeCudaError(error));
  }
  if (options_.observer != nullptr) options_.observer->DeviceFailed(ordinal, kind);
}

// ---- Set-up ----

absl::Status CudaExecutor::SetUp() {
  for (int device = 0; device < static_cast<int>(options_.devices.size()); ++device) {
    if (absl::Status status = SetUpDevice(device); !status.ok()) return status;
  }
  return slab_pool_.Reserve(FirstSlabs(options_.memory.capacity_bytes));
}

absl::Status CudaExecutor::SetUpDevice(int device) {
  const int ordinal = options_.devices[device].ordinal;
  for (int i = 0; i < options_.lanes_per_device; ++i) {
    absl::StatusOr<std::unique_ptr<CudaLane>> lane = CudaLane::Create(ordinal);
    if (!lane.ok()) return lane.status();
    if (absl::Status status = WarmUp(**lane, ordinal); !status.ok()) return status;
    lanes_.push_back(*std::move(lane));

    absl::MutexLock lock(&mutex_);
    free_lanes_[device].push_back(lanes_.back().get());
    ++loads_[device].num_free_lanes;
  }
  return absl::OkStatus();
}

absl::Status CudaExecutor::WarmUp(CudaLane& lane, int ordinal) {
  absl::StatusOr<Slab> slab = slab_pool_.Acquire(kWarmUpSlabBytes);
  if (!slab.ok()) return slab.status();
  std::byte* const h_slab = slab->data.get();
  if (absl::Status status = UseCudaDevice(ordinal); !status.ok()) return status;
  void* d_slab = nullptr;
  const cudaError_t error = cudaHostGetDevicePointer(&d_slab, h_slab, 0);
  if (error != cudaSuccess) return CudaStatus(error, ordinal);
  if (d_slab != h_slab) {
    return absl::FailedPreconditionError(absl::StrCat(
        "device ", ordinal, " sees pinned host memory at another address than the host does"));
  }
  for (const Model& model : Models()) {
    std::memset(h_slab, 0, kWarmUpSlabBytes);
    const Batch batch = MakeWarmUpBatch(model, h_slab);
    for (const Segment& segment : batch.segments) {
      for (size_t k = 0; k < model.outputs.size(); ++k) {
        std::memset(segment.outputs[k], 0xFF, kWarmUpElements * ElementBytes(model.dtype));
      }
    }
    cudaError_t outcome = cudaSuccess;
    absl::Notification finished;
    lane.Run(batch, [&](const CudaLane::Result& result) {
      outcome = result.error;
      finished.Notify();
    });
    finished.WaitForNotification();
    if (outcome != cudaSuccess) return CudaStatus(outcome, ordinal);
    if (!WroteZeros(model, batch)) {
      return absl::InternalError(
          absl::StrCat("device ", ordinal, " computes wrong results for ", model.name));
    }
  }
  return absl::OkStatus();
}

}  // namespace swiglu::server
