// SPDX-License-Identifier: Apache-2.0
//
// One thread that asks, and a copy of what it was told.
#include "server/device/gpu_monitor.h"

#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/device/gpu_memory.h"
#include "server/log/log.h"

namespace swiglu::server {

GpuMonitor::GpuMonitor(std::vector<DeviceInfo> devices, GpuMonitorOptions options)
    : options_(std::move(options)) {
  if (devices.empty()) return;
  for (DeviceInfo& device : devices) watched_.push_back({std::move(device)});
  OpenNvml(options_.nvml_library);
  Publish(TakeSamples());
  thread_ = std::thread([this] { Watch(); });
}

GpuMonitor::~GpuMonitor() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void GpuMonitor::OpenNvml(const std::string& library) {
  absl::StatusOr<std::unique_ptr<Nvml>> nvml = Nvml::Open(library);
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

std::vector<GpuMonitor::Sample> GpuMonitor::TakeSamples() const {
  std::vector<Sample> samples;
  for (const Watched& device : watched_) {
    Sample& sample = samples.emplace_back();
    if (device.gpu != nullptr) sample.figures = nvml_->Read(device.gpu);
    sample.memory_used_bytes = CudaMemoryUsedBytes(device.info.ordinal);
  }
  return samples;
}

void GpuMonitor::Publish(std::vector<Sample> samples) {
  absl::MutexLock lock(&mutex_);
  samples_ = std::move(samples);
  sampled_at_ = Clock::now();
}

void GpuMonitor::Watch() {
  const absl::Duration interval = absl::FromChrono(options_.interval);
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_), interval)) return;
    }
    Publish(TakeSamples());
  }
}

int GpuMonitor::PositionOf(int ordinal) const {
  for (size_t i = 0; i < watched_.size(); ++i) {
    if (watched_[i].info.ordinal == ordinal) return static_cast<int>(i);
  }
  return -1;
}

std::optional<GpuFigures> GpuMonitor::figures(int ordinal, Clock::time_point now) const {
  const int position = PositionOf(ordinal);
  if (position < 0 || watched_[position].gpu == nullptr) return std::nullopt;
  absl::MutexLock lock(&mutex_);
  if (now - sampled_at_ > kMaxAge) return std::nullopt;
  return samples_[position].figures;
}

int64_t GpuMonitor::memory_used_bytes(int ordinal) const {
  const int position = PositionOf(ordinal);
  if (position < 0) return 0;
  absl::MutexLock lock(&mutex_);
  return samples_[position].memory_used_bytes;
}

}  // namespace swiglu::server
