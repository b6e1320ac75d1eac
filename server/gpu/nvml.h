// SPDX-License-Identifier: Apache-2.0
//
// NVML, the driver's library for its own figures. It is opened at run time and never linked, so a
// machine without it, or with an older one, only has fewer figures.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/core/gpu_figures.h"

namespace swiglu::server {

// The file name of NVML, as the driver installs it.
inline constexpr char kNvmlLibrary[] = "libnvidia-ml.so.1";

// An open NVML. Thread-safe. Calls ask the driver and may take milliseconds, or far longer where a
// GPU hangs.
class Nvml {
 public:
  // A GPU, as NVML's handle. Lives as long as the Nvml that found it.
  using Gpu = struct nvmlDevice_st*;

  // Opens `library` and starts it. FAILED_PRECONDITION if there is no such library, if it lacks a
  // function that is always needed, or if it does not start. The error says which.
  static absl::StatusOr<std::unique_ptr<Nvml>> Open(const std::string& library);

  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  // The GPU at `pci_bus_id`, "0000:1b:00.0": CUDA's ordinals differ from NVML's wherever
  // CUDA_VISIBLE_DEVICES is set. FAILED_PRECONDITION, saying why there is none.
  absl::StatusOr<Gpu> Find(const std::string& pci_bus_id) const;

  // The figures of `gpu` now. A figure is left out if the GPU does not give it, or if this NVML has
  // no function for it.
  GpuFigures Read(Gpu gpu) const;

 private:
  struct Functions;
  struct LibraryCloser {
    void operator()(void* library) const noexcept;
  };
  using Library = std::unique_ptr<void, LibraryCloser>;

  Nvml(Library library, std::unique_ptr<const Functions> functions);

  const Library library_;
  const std::unique_ptr<const Functions> functions_;  // point into library_
};

}  // namespace swiglu::server
