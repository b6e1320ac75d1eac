// SPDX-License-Identifier: Apache-2.0
//
// Regions without memory, for tests of the registry.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "server/core/region.h"

namespace swiglu::server {

// What the regions of a FakeOpener share.
struct FakeMemoryState {
  std::atomic<int> num_open{0};
  std::atomic<bool> is_shrunk{false};
  std::atomic<bool> has_hole{false};
};

class FakeMemory final : public RegionMemory {
 public:
  FakeMemory(FakeMemoryState* state, int device) : RegionMemory(nullptr, device), state_(state) {
    ++state_->num_open;
  }
  ~FakeMemory() override { --state_->num_open; }
  bool IsShrunk() const override { return state_->is_shrunk; }
  bool HasHole() const override { return state_->has_hole; }

 private:
  FakeMemoryState* const state_;
};

// Opens everything, or nothing while `refusal` is set.
class FakeOpener final : public RegionOpener {
 public:
  bool Supports(RegionKind) const override { return true; }
  OpenedRegion Open(const RegionSpec& spec) override {
    if (refusal.has_value()) return *refusal;
    const auto* cuda = std::get_if<CudaRegionSource>(&spec.source);
    return std::make_unique<FakeMemory>(
        &state, cuda == nullptr ? kCpuDevice : static_cast<int>(cuda->device));
  }

  FakeMemoryState state;
  std::optional<RegionRefusal> refusal;
};

inline RegionSpec SystemSpec(uint64_t size_bytes, uint64_t offset = 0) {
  return {size_bytes, SystemRegionSource{"key", offset}};
}
inline RegionSpec CudaSpec(uint64_t size_bytes, int64_t device = 0) {
  return {size_bytes, CudaRegionSource{"handle", device}};
}

}  // namespace swiglu::server
