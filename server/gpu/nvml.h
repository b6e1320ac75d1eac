// SPDX-License-Identifier: Apache-2.0
//
// NVML, the library through which the driver reports figures. The server opens it at run time and
// is not linked with it. So the server also runs without NVML or with an older one, and then has
// fewer figures.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/core/gpu_figures.h"

namespace swiglu::server {

// The file name of NVML, as the driver installs it.
inline constexpr char kNvmlLibrary[] = "libnvidia-ml.so.1";

// The open library. Thread-safe. Calls may take milliseconds, or far longer if a GPU hangs.
class Nvml {
 public:
  // NVML's handle of a GPU. Valid as long as the `Nvml` object that found the GPU.
  using Gpu = struct nvmlDevice_st*;

  // Opens and initializes `library`. FAILED_PRECONDITION, with the reason, if there is no such
  // library, if it lacks a function that is always needed, or if its initialization fails.
  static absl::StatusOr<std::unique_ptr<Nvml>> Open(const std::string& library);

  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  // Finds the GPU at `pci_bus_id`, such as "0000:1b:00.0". It takes no ordinal, because CUDA's
  // ordinals differ from NVML's if CUDA_VISIBLE_DEVICES is set. FAILED_PRECONDITION, with the
  // reason, if there is no such GPU.
  absl::StatusOr<Gpu> Find(const std::string& pci_bus_id) const;

  // The current figures of `gpu`. Leaves out a figure that the GPU does not report, or for which
  // this NVML has no function.
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
