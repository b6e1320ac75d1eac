// SPDX-License-Identifier: Apache-2.0
//
// What the Python objects of one client share: the client of the C++ library, and the regions of
// shared memory that its calls may use.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "client/python/gpu_memory.h"
#include "swiglu/client.h"
#include "swiglu/future.h"
#include "swiglu/options.h"
#include "swiglu/shared_memory.h"
#include "swiglu/tensor_place.h"

namespace swiglu::python {

namespace py = pybind11;

// The memory of a region. Registered at a client while it lives.
struct RegionMemory {
  std::byte* begin;
  int64_t size_bytes;
  std::string name;
};

// `options` with the time that is left until `deadline` as the timeout, in whole milliseconds.
client::CallOptions Until(absl::Time deadline, client::CallOptions options);

// Needs the GIL, except what is const and what `gpu_memory` does.
class ClientState {
 public:
  // `server_device` is that of GpuMemory.
  ClientState(client::Client its_client, client::Options its_options, int64_t server_device)
      : client(std::move(its_client)), options(std::move(its_options)), gpu_memory(server_device) {}

  void Add(RegionMemory region) { regions_.push_back(std::move(region)); }
  void Remove(const std::byte* begin);

  // Where `bytes` lie in a region of this client. nullopt if they do not lie in one as a whole.
  absl::optional<client::RegionPart> FindPart(absl::Span<const std::byte> bytes) const;

  // When a call that begins now, with tensors of that many bytes, has no time left.
  absl::Time DeadlineOf(const client::CallOptions& call, int64_t num_bytes) const;

  // FAILED_PRECONDITION in a process that was forked from the one of the client.
  absl::Status CheckProcess() const;

  const client::Client client;
  const client::Options options;
  GpuMemory gpu_memory;

 private:
  const int process_ = client::FutureState::CurrentProcess();
  std::vector<RegionMemory> regions_;
};

// The destruction of the last copy waits for calls, with the GIL released.
using ClientHandle = std::shared_ptr<ClientState>;
ClientHandle MakeHandle(client::Client client, const client::Options& options,
                        int64_t server_device);

// A region of the host's memory, which Python looks into through the buffer protocol.
class Region {
 public:
  Region(ClientHandle client, int64_t size_bytes, const client::SystemRegionOptions& options);
  ~Region();  // NOLINT(bugprone-exception-escape): what would be thrown ends the process
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  const std::string& name() const { return region_->name(); }
  absl::Span<std::byte> bytes() const { return region_->bytes(); }

 private:
  const ClientHandle client_;
  absl::optional<client::SystemRegion> region_;
};

}  // namespace swiglu::python
