// SPDX-License-Identifier: Apache-2.0
//
// Memory that the client and a server on the same host share. Messages need not carry the tensors
// that are in this memory. An example:
//
//   auto region = SystemRegion::Create(*client, 3 * 16'000);
//   ... write e and g to region->bytes() ...
//   client->ForwardInto({Dtype::kFp32, {4, 1000}, region->Part(0, 16'000)},
//                       {Dtype::kFp32, {4, 1000}, region->Part(16'000, 16'000)},
//                       region->Part(32'000, 16'000));
//
// The server needs --system_shared_memory=on, and must see the same /dev/shm as the client. It must
// also be allowed to open the client's file: it runs as the same user, or `mode` gives its user
// access.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "swiglu/client.h"
#include "swiglu/tensor_place.h"

namespace swiglu::client {

// How a region of host memory is made and registered.
struct SystemRegionOptions {
  // What the region is called at the server. Every client of the server can list this name and use
  // the region. Default: a random name, so that no other client has the same.
  std::string name = "";

  // What the name of the file in /dev/shm begins with. The rest of the name is random. At
  // most 200 bytes, without '/'. The server's --system_shared_memory_prefix may demand a certain
  // prefix.
  std::string file_prefix = "swiglu-";

  // Permissions of the file. For a server that runs as another user of the same group: 0660.
  unsigned mode = 0600;

  // Time for the registration, above 0. Default: 30 s and 1 s more for every 100 MB.
  absl::optional<absl::Duration> timeout = absl::nullopt;
};

// A region of the host's memory, mapped here and registered at a server. Move-only. The destructor
// unregisters the region, which takes 2 s at most. Then it unmaps the region. A process that is
// killed leaves no file behind. The server frees the memory of such a process when it notices that
// the process has gone, or after --region_idle_timeout. After this time without use, the server
// also drops regions of processes that live. Calls that name them are then NOT_FOUND. Using a
// region is as thread-safe as using plain memory.
class SystemRegion {
 public:
  // A region of `size_bytes` bytes, all 0. It has a copy of `client`. Blocks until the server has
  // registered it. An error leaves nothing behind:
  // - INVALID_ARGUMENT for a size or an option out of range
  // - RESOURCE_EXHAUSTED if /dev/shm has no room for it
  // - the server's own errors, for example UNIMPLEMENTED if it takes no system shared memory,
  //   ALREADY_EXISTS if the name is taken, and INVALID_ARGUMENT if it cannot open the file
  static absl::StatusOr<SystemRegion> Create(const Client& client, int64_t size_bytes,
                                             const SystemRegionOptions& options = {});

  // A region that was moved from has no memory, and may only be assigned to or destroyed.
  SystemRegion(SystemRegion&& other) noexcept { Swap(other); }
  SystemRegion& operator=(SystemRegion&& other) noexcept {
    SystemRegion taken(std::move(other));
    Swap(taken);
    return *this;
  }
  ~SystemRegion();

  // The name at the server.
  const std::string& name() const { return name_; }
  int64_t size_bytes() const { return static_cast<int64_t>(bytes_.size()); }
  // The memory. Nobody may write to inputs, or touch outputs, while a call uses them.
  absl::Span<std::byte> bytes() const { return bytes_; }

  // Bytes [offset, offset + size_bytes), for a tensor of a call. The call checks that they are
  // inside.
  RegionPart Part(int64_t offset, int64_t size_bytes) const {
    return {name_, this->size_bytes(), offset, size_bytes};
  }

 private:
  SystemRegion() = default;
  void Swap(SystemRegion& other) noexcept {
    client_.swap(other.client_);
    name_.swap(other.name_);
    std::swap(bytes_, other.bytes_);
  }

  absl::optional<Client> client_;  // none: not registered
  std::string name_;
  absl::Span<std::byte> bytes_;
};

}  // namespace swiglu::client
