// SPDX-License-Identifier: Apache-2.0
//
// The host's memory.
#include "client/bench/shared_region.h"

#include <cstring>
#include <utility>

#include "swiglu/shared_memory.h"

namespace swiglu::bench {
namespace {

class HostRegion final : public SharedRegion {
 public:
  explicit HostRegion(client::SystemRegion region) : region_(std::move(region)) {}

  client::RegionPart Part(int64_t offset, int64_t size_bytes) const override {
    return region_.Part(offset, size_bytes);
  }

  absl::Status Write(int64_t offset, absl::Span<const std::byte> bytes) override {
    std::memcpy(region_.bytes().data() + offset, bytes.data(), bytes.size());
    return absl::OkStatus();
  }

  absl::Status Read(int64_t offset, absl::Span<std::byte> bytes) const override {
    std::memcpy(bytes.data(), region_.bytes().data() + offset, bytes.size());
    return absl::OkStatus();
  }

 private:
  client::SystemRegion region_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SharedRegion>> CreateSystemRegion(const client::Client& client,
                                                                 int64_t size_bytes) {
  absl::StatusOr<client::SystemRegion> region = client::SystemRegion::Create(client, size_bytes);
  if (!region.ok()) return region.status();
  return std::make_unique<HostRegion>(*std::move(region));
}

}  // namespace swiglu::bench
