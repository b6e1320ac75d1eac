// SPDX-License-Identifier: Apache-2.0
//
// From the protocol's messages to the registry of regions. See the header.
#include "server/service/region_service.h"

#include <optional>
#include <utility>

#include "server/codec/errors.h"
#include "server/codec/region_errors.h"

namespace swiglu::server {
namespace {

// Fills in what the messages of both kinds have. `fill` adds what one kind has.
template <typename Response, typename Fill>
absl::Status FillStatus(const RegionRegistry& registry, RegionKind kind, const std::string& name,
                        Response* response, Fill fill) {
  if (!registry.limits().enabled[static_cast<size_t>(kind)]) return errors::RegionsOff(kind);
  const std::vector<RegionInfo> regions = registry.List(kind, name);
  if (regions.empty() && !name.empty()) return errors::UnknownRegion(name);
  for (const RegionInfo& region : regions) {
    auto& entry = (*response->mutable_regions())[region.name];
    entry.set_name(region.name);
    entry.set_byte_size(static_cast<uint64_t>(region.size_bytes));
    fill(region, entry);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RegionService::SystemStatus(
    const inference::SystemSharedMemoryStatusRequest& request,
    inference::SystemSharedMemoryStatusResponse* response) const {
  return FillStatus(regions_->registry(), RegionKind::kSystem, request.name(), response,
                    [](const RegionInfo& region, auto& entry) {
                      entry.set_offset(static_cast<uint64_t>(region.offset));
                    });
}

absl::Status RegionService::CudaStatus(const inference::CudaSharedMemoryStatusRequest& request,
                                       inference::CudaSharedMemoryStatusResponse* response) const {
  return FillStatus(regions_->registry(), RegionKind::kCuda, request.name(), response,
                    [](const RegionInfo& region, auto& entry) {
                      entry.set_device_id(static_cast<uint64_t>(region.device));
                    });
}

void RegionService::SystemRegister(Call& call,
                                   const inference::SystemSharedMemoryRegisterRequest& request,
                                   Done done) const {
  Register(call, request.name(),
           {request.byte_size(), SystemRegionSource{request.key(), request.offset()}},
           std::move(done));
}

void RegionService::CudaRegister(Call& call,
                                 const inference::CudaSharedMemoryRegisterRequest& request,
                                 Done done) const {
  Register(call, request.name(),
           {request.byte_size(), CudaRegionSource{request.raw_handle(), request.device_id()}},
           std::move(done));
}

void RegionService::Register(Call& call, const std::string& name, RegionSpec spec,
                             Done done) const {
  regions_->Post([this, call = call.shared_from_this(), name, spec = std::move(spec),
                  token = ActiveRequests::Token(active_),
                  done = std::move(done)](RegionRegistry& registry) mutable {
    // A caller that has gone does not know of the region, and would never unregister it.
    if (call->is_cancelled()) return done(errors::Cancelled("before the region was registered"));
    const std::optional<RegionRefusal> refusal =
        registry.Register(name, spec, owner_of_(*call), Clock::now());
    if (!refusal.has_value() && call->is_cancelled()) {
      registry.Unregister(spec.kind(), name);
      return done(errors::Cancelled("while the region was registered"));
    }
    done(refusal.has_value() ? errors::RegionRefused(name, spec, *refusal) : absl::OkStatus());
  });
}

void RegionService::SystemUnregister(Call&,
                                     const inference::SystemSharedMemoryUnregisterRequest& request,
                                     Done done) const {
  Unregister(RegionKind::kSystem, request.name(), std::move(done));
}

void RegionService::CudaUnregister(Call&,
                                   const inference::CudaSharedMemoryUnregisterRequest& request,
                                   Done done) const {
  Unregister(RegionKind::kCuda, request.name(), std::move(done));
}

void RegionService::Unregister(RegionKind kind, const std::string& name, Done done) const {
  regions_->Post([kind, name, token = ActiveRequests::Token(active_),
                  done = std::move(done)](RegionRegistry& registry) mutable {
    registry.Unregister(kind, name);
    done(absl::OkStatus());
  });
}

}  // namespace swiglu::server
