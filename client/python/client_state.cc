// SPDX-License-Identifier: Apache-2.0
//
// Looks regions up by address.
#include "client/python/client_state.h"

#include <algorithm>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "client/python/interruptible_connection.h"
#include "client/python/names.h"

namespace swiglu::python {
namespace {

// The timeout of a call that has none, as client::Options::timeout says.
constexpr absl::Duration kBaseTimeout = absl::Seconds(30);
constexpr absl::Duration kTimeoutPerByte = absl::Nanoseconds(10);

// Calls the `work` of a destructor without the GIL, whether or not this thread has it.
template <typename Work>
void WithoutGil(const Work& work) {
  const SignalsLater signals_later;
  if (PyGILState_Check() == 0) return work();
  const py::gil_scoped_release no_gil;
  work();
}

}  // namespace

client::CallOptions Until(absl::Time deadline, client::CallOptions options) {
  const absl::Duration left = std::max(deadline - absl::Now(), absl::ZeroDuration());
  options.timeout = absl::Ceil(left, absl::Milliseconds(1));
  return options;
}

absl::Time ClientState::DeadlineOf(const client::CallOptions& call, int64_t num_bytes) const {
  if (call.timeout) return absl::Now() + *call.timeout;
  if (options.timeout > absl::ZeroDuration()) return absl::Now() + options.timeout;
  return absl::Now() + kBaseTimeout + kTimeoutPerByte * num_bytes;
}

absl::Status ClientState::CheckProcess() const {
  if (process_ == client::FutureState::CurrentProcess()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "this client was made before fork(); the child cannot use its memory of a GPU: start a new "
      "program, or fork before the first client is made");
}

void ClientState::Remove(const std::byte* begin) {
  const auto is_it = [begin](const RegionMemory& region) { return region.begin == begin; };
  regions_.erase(std::remove_if(regions_.begin(), regions_.end(), is_it), regions_.end());
}

absl::optional<client::RegionPart> ClientState::FindPart(absl::Span<const std::byte> bytes) const {
  for (const RegionMemory& region : regions_) {
    const int64_t offset = bytes.data() - region.begin;
    const auto size_bytes = static_cast<int64_t>(bytes.size());
    if (offset < 0 || size_bytes > region.size_bytes - offset) continue;
    return client::RegionPart{region.name, region.size_bytes, offset, size_bytes};
  }
  return absl::nullopt;
}

ClientHandle MakeHandle(client::Client client, const client::Options& options,
                        int64_t server_device) {
  return ClientHandle(new ClientState(std::move(client), options, server_device),
                      [](ClientState* state) { WithoutGil([state] { delete state; }); });
}

Region::Region(ClientHandle client, int64_t size_bytes, const client::SystemRegionOptions& options)
    : client_(std::move(client)) {
  absl::Status status;
  {
    const py::gil_scoped_release no_gil;
    absl::StatusOr<client::SystemRegion> region =
        client::SystemRegion::Create(client_->client, size_bytes, options);
    status = region.status();
    if (region.ok()) region_ = *std::move(region);
  }
  if (PyErr_Occurred() != nullptr) throw py::error_already_set();
  ThrowUnlessOk(status);
  client_->Add({bytes().data(), size_bytes, name()});
}

Region::~Region() {  // NOLINT(bugprone-exception-escape): what would be thrown ends the process
  client_->Remove(bytes().data());
  WithoutGil([this] { region_.reset(); });
}

}  // namespace swiglu::python
