// SPDX-License-Identifier: Apache-2.0
//
// One thread that asks, and a copy of what it was told.
#include "server/gpu/gpu_monitor.h"

#include <cstddef>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/log/log.h"

#ifdef SWIGLU_CUDA
#include <cuda_runtime_api.h>
#endif

namespace swiglu::server {

int64_t CudaMemoryUsedBytes([[maybe_unused]] int ordinal) {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
#ifdef SWIGLU_CUDA
  if (cudaSetDevice(ordinal) != cudaSuccess ||
      cudaMemGetInfo(&free_bytes, &total_bytes) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
#endif
  return static_cast<int64_t>(total_bytes - free_bytes);
}

// What the thread works with; it lasts as long as the thread.
class GpuMonitor::Watch {
 public:
  struct Sample {
    std::optional<GpuFigures> figures;  // none: NVML does not know the device
    std::optional<int64_t> memory_used_bytes;
  };

  Watch(std::vector<DeviceInfo> devices, GpuMonitorOptions options);

  const GpuMonitorOptions& options() const { return options_; }

  // What is known of a device; nothing if that is too old.
  Sample Latest(int ordinal, Clock::time_point now) const;

  // The thread.
  void Run();
  // Has it end. False if it has not within that time.
  bool Stop(absl::Duration patience);

 private:
  struct Watched {
    DeviceInfo info;
    Nvml::Gpu gpu = nullptr;  // nullptr: NVML does not know it
  };

  // Opens NVML and finds the devices there.
  void OpenNvml();
  // Asks the drivers, with no lock held.
  std::vector<Sample> TakeSamples() const;
  void Publish(std::vector<Sample> samples);

  const GpuMonitorOptions options_;
  std::unique_ptr<Nvml> nvml_;    // nullptr: there is none
  std::vector<Watched> watched_;  // constant after construction

  // Held for copies alone.
  mutable absl::Mutex mutex_;
  std::vector<Sample> samples_ ABSL_GUARDED_BY(mutex_);  // by position in watched_
  Clock::time_point sampled_at_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

GpuMonitor::Watch::Watch(std::vector<DeviceInfo> devices, GpuMonitorOptions options)
    : options_(std::move(options)) {
  for (DeviceInfo& device : devices) watched_.push_back({std::move(device)});
  OpenNvml();
  Publish(TakeSamples());
}

void GpuMonitor::Watch::OpenNvml() {
  absl::StatusOr<std::unique_ptr<Nvml>> nvml = Nvml::Open(options_.nvml_library);
  if (!nvml.ok()) {
    LOG(WARNING, "no GPU figures: {}", nvml.status().message());
    return;
  }
  nvml_ = *std::move(nvml);
  for (Watched& device : watched_) {
    const absl::StatusOr<Nvml::Gpu> gpu = nvml_->Find(device.info.pci_bus_id);
    if (gpu.ok()) {
      device.gpu = *gpu;
    } else {
      LOG(WARNING, "no GPU figures of device {}: {}", device.info.ordinal, gpu.status().message());
    }
  }
}

std::vector<GpuMonitor::Watch::Sample> GpuMonitor::Watch::TakeSamples() const {
  std::vector<Sample> samples;
  for (const Watched& device : watched_) {
    Sample& sample = samples.emplace_back();
    if (device.gpu != nullptr) sample.figures = nvml_->Read(device.gpu);
    const int64_t used_bytes = CudaMemoryUsedBytes(device.info.ordinal);
    if (used_bytes > 0) sample.memory_used_bytes = used_bytes;
  }
  return samples;
}

void GpuMonitor::Watch::Publish(std::vector<Sample> samples) {
  absl::MutexLock lock(&mutex_);
  samples_ = std::move(samples);
  sampled_at_ = Clock::now();
}

void GpuMonitor::Watch::Run() {
  const absl::Duration interval = absl::FromChrono(options_.interval);
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_), interval)) {
        ended_ = true;
        return;
      }
    }
    Publish(TakeSamples());
  }
}

bool GpuMonitor::Watch::Stop(absl::Duration patience) {
  absl::MutexLock lock(&mutex_);
  stopping_ = true;
  return mutex_.AwaitWithTimeout(absl::Condition(&ended_), patience);
}

GpuMonitor::Watch::Sample GpuMonitor::Watch::Latest(int ordinal, Clock::time_point now) const {
  absl::MutexLock lock(&mutex_);
  for (size_t i = 0; i < watched_.size() && now - sampled_at_ <= kMaxAge; ++i) {
    if (watched_[i].info.ordinal == ordinal) return samples_[i];
  }
  return {};
}

GpuMonitor::GpuMonitor(std::vector<DeviceInfo> devices, GpuMonitorOptions options) {
  if (devices.empty()) return;
  watch_ = std::make_shared<Watch>(std::move(devices), std::move(options));
  thread_ = std::thread([watch = watch_] { watch->Run(); });
}

GpuMonitor::~GpuMonitor() {
  if (watch_ == nullptr) return;
  if (watch_->Stop(absl::FromChrono(watch_->options().patience))) {
    thread_.join();
  } else {
    LOG(WARNING, "a driver does not answer: the thread that asks it is left behind");
    thread_.detach();
  }
}

std::optional<GpuFigures> GpuMonitor::figures(int ordinal, Clock::time_point now) const {
  if (watch_ == nullptr) return std::nullopt;
  return watch_->Latest(ordinal, now).figures;
}

std::optional<int64_t> GpuMonitor::memory_used_bytes(int ordinal, Clock::time_point now) const {
  if (watch_ == nullptr) return std::nullopt;
  return watch_->Latest(ordinal, now).memory_used_bytes;
}

}  // namespace swiglu::server
