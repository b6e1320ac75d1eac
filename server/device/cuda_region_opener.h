// SPDX-License-Identifier: Apache-2.0
//
// Opens regions for CUDA devices. A system region is a client's file, which the opener pins. A CUDA
// region is memory that another process has on a device.
#pragma once

#include <string>
#include <vector>

#include "server/core/region.h"

namespace swiglu::server {

// Thread-safe. `Open` may block until the devices have finished the work in flight.
class CudaRegionOpener final : public RegionOpener {
 public:
  // `ordinals`: the devices in use, at least one. `prefix`: as for HostRegionOpener.
  CudaRegionOpener(std::vector<int> ordinals, std::string prefix)
      : ordinals_(std::move(ordinals)), prefix_(std::move(prefix)) {}

  bool Supports(RegionKind) const override { return true; }
  OpenedRegion Open(const RegionSpec& spec) override;

 private:
  OpenedRegion OpenSystem(const SystemRegionSource& source, uint64_t size_bytes) const;
  OpenedRegion OpenCuda(const CudaRegionSource& source, uint64_t size_bytes) const;

  const std::vector<int> ordinals_;
  const std::string prefix_;
};

}  // namespace swiglu::server
