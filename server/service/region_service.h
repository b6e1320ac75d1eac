// SPDX-License-Identifier: Apache-2.0
//
// The RPCs about shared memory: status, register and unregister, for both kinds of regions.
#pragma once

#include <functional>
#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "proto/inference.pb.h"
#include "server/regions/region_thread.h"
#include "server/service/active_requests.h"
#include "server/transport/call.h"

namespace swiglu::server {

// One method for each RPC. The methods that change something do so on the thread of the regions,
// and call `done` there. Thread-safe.
class RegionService {
 public:
  using OwnerOf = std::function<std::shared_ptr<const RegionOwner>(const Call&)>;
  using Done = absl::AnyInvocable<void(absl::Status)>;

  // `owner_of` returns the owner of a region that a call registers: the client that made the call,
  // or a group that contains this client. nullptr: unknown. `active` counts the calls that change
  // something, so that a drain waits for them.
  RegionService(RegionThread* regions, ActiveRequests* active, OwnerOf owner_of)
      : regions_(regions), active_(active), owner_of_(std::move(owner_of)) {}

  bool is_enabled() const { return regions_->registry().is_enabled(); }

  // NOT_FOUND for a name that no region of the kind has, UNIMPLEMENTED if the kind is off. No
  // response contains the key of a file.
  absl::Status SystemStatus(const inference::SystemSharedMemoryStatusRequest& request,
                            inference::SystemSharedMemoryStatusResponse* response) const;
  absl::Status CudaStatus(const inference::CudaSharedMemoryStatusRequest& request,
                          inference::CudaSharedMemoryStatusResponse* response) const;

  void SystemRegister(Call& call, const inference::SystemSharedMemoryRegisterRequest& request,
                      Done done) const;
  void CudaRegister(Call& call, const inference::CudaSharedMemoryRegisterRequest& request,
                    Done done) const;

  // Always OK. If nobody uses the region, its memory is already closed when `done` is called.
  void SystemUnregister(Call& call, const inference::SystemSharedMemoryUnregisterRequest& request,
                        Done done) const;
  void CudaUnregister(Call& call, const inference::CudaSharedMemoryUnregisterRequest& request,
                      Done done) const;

 private:
  void Register(Call& call, const std::string& name, RegionSpec spec, Done done) const;
  void Unregister(RegionKind kind, const std::string& name, Done done) const;

  RegionThread* const regions_;
  ActiveRequests* const active_;
  const OwnerOf owner_of_;
};

}  // namespace swiglu::server
