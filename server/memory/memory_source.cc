// SPDX-License-Identifier: Apache-2.0
//
// The pageable memory source.
#include "server/memory/memory_source.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace swiglu::server {
namespace {

constexpr size_t kPageBytes = 4096;

class HostMemory final : public MemorySource {
 public:
  absl::StatusOr<std::byte*> Allocate(size_t size_bytes) override {
    void* data = nullptr;
    if (posix_memalign(&data, kPageBytes, size_bytes) != 0) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the host has no ", size_bytes, " bytes of memory left"));
    }
    return static_cast<std::byte*>(data);
  }

  void Free(std::byte* data, size_t) noexcept override { std::free(data); }
};

}  // namespace

std::unique_ptr<MemorySource> MakeHostMemory() { return std::make_unique<HostMemory>(); }

}  // namespace swiglu::server
