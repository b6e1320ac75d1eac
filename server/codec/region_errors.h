// SPDX-License-Identifier: Apache-2.0
//
// The refusals of tensors in regions of shared memory, and of the registration of regions. See
// errors.h.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/core/region.h"

namespace swiglu::server::errors {

// Tensors in regions.
absl::Status SharedMemoryOff(absl::string_view tensor, absl::string_view region);
absl::Status BadRegionParameter(absl::string_view tensor, absl::string_view parameter,
                                absl::string_view found);
absl::Status NoRegionSize(absl::string_view tensor);
absl::Status TypedBesideRegion(absl::string_view input);
absl::Status UnknownRegion(absl::string_view region);
// The `size_bytes` bytes from `offset` on are not all in the region, which has `region_bytes`.
absl::Status OutsideRegion(absl::string_view tensor, absl::string_view region, int64_t offset,
                           int64_t size_bytes, int64_t region_bytes);
absl::Status UnalignedInRegion(absl::string_view tensor, absl::string_view region, int64_t offset,
                               int64_t element_bytes);
absl::Status RegionPartTooSmall(absl::string_view output, int64_t needed_bytes, int64_t part_bytes);
absl::Status TensorsOverlap(absl::string_view output, absl::string_view other, bool is_input);
absl::Status GradientOverlapsInput(absl::string_view gradient, absl::string_view input);
absl::Status RegionsOfTwoDevices(absl::string_view first, int first_device,
                                 absl::string_view second, int second_device);
absl::Status RegionShrunk(absl::string_view region);

// Registering a region. These errors never repeat the key of a file or a memory handle.
absl::Status RegionsOff(RegionKind kind);
absl::Status RegionRefused(absl::string_view region, const RegionSpec& spec,
                           const RegionRefusal& refusal);

}  // namespace swiglu::server::errors
