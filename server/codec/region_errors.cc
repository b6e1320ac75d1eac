// SPDX-License-Identifier: Apache-2.0
//
// Codes and sentences about regions of shared memory.
#include "server/codec/region_errors.h"

#include <string>
#include <variant>

#include "absl/strings/str_cat.h"
#include "server/codec/error_parts.h"

namespace swiglu::server::errors {
namespace {

absl::Status BadRegion(absl::string_view message) {
  return Refused(absl::StatusCode::kInvalidArgument, Rejection::kRegion, message);
}

}  // namespace

absl::Status SharedMemoryOff(absl::string_view tensor, absl::string_view region) {
  return absl::UnimplementedError(absl::StrCat(Quote(tensor), " lies in shared memory region ",
                                               Quote(region),
                                               ", but this server takes no shared memory"));
}

absl::Status BadRegionParameter(absl::string_view tensor, absl::string_view parameter,
                                absl::string_view found) {
  return BadRegion(
      absl::StrCat("parameter ", Quote(parameter), " of ", Quote(tensor), " is ", found));
}

absl::Status NoRegionSize(absl::string_view tensor) {
  return BadRegion(absl::StrCat(Quote(tensor),
                                " lies in a shared memory region, but has no parameter "
                                "'shared_memory_byte_size'"));
}

absl::Status TypedBesideRegion(absl::string_view input) {
  return BadRegion(absl::StrCat("input ", Quote(input),
                                " lies in a shared memory region, and has typed contents: give one "
                                "kind of data"));
}

absl::Status UnknownRegion(absl::string_view region) {
  return Refused(absl::StatusCode::kNotFound, Rejection::kRegion,
                 absl::StrCat("unknown region ", Quote(region)));
}

absl::Status OutsideRegion(absl::string_view tensor, absl::string_view region, int64_t offset,
                           int64_t size_bytes, int64_t region_bytes) {
  return BadRegion(absl::StrCat("region ", Quote(region), " has ", region_bytes, " bytes; ",
                                Quote(tensor), " takes ", size_bytes, " from offset ", offset));
}

absl::Status UnalignedInRegion(absl::string_view tensor, absl::string_view region, int64_t offset,
                               int64_t element_bytes) {
  return BadRegion(absl::StrCat("offset ", offset, " of ", Quote(tensor), " in region ",
                                Quote(region), " is no multiple of the element size ",
                                element_bytes));
}

absl::Status RegionPartTooSmall(absl::string_view output, int64_t needed_bytes,
                                int64_t part_bytes) {
  return BadRegion(absl::StrCat("output ", Quote(output), " needs ", needed_bytes,
                                " bytes; its region part has ", part_bytes));
}

absl::Status TensorsOverlap(absl::string_view output, absl::string_view other, bool is_input) {
  return BadRegion(absl::StrCat("output ", Quote(output), " overlaps ",
                                is_input ? "input " : "output ", Quote(other),
                                is_input ? "; it may only lie exactly where the input of the same "
                                           "position lies"
                                         : ""));
}

absl::Status GradientOverlapsInput(absl::string_view gradient, absl::string_view input) {
  return BadRegion(absl::StrCat("output ", Quote(gradient), " overlaps input ", Quote(input)));
}

absl::Status RegionsOfTwoDevices(absl::string_view first, int first_device,
                                 absl::string_view second, int second_device) {
  return BadRegion(absl::StrCat(Quote(first), " is on device ", first_device, ", ", Quote(second),
                                " on device ", second_device));
}

absl::Status RegionShrunk(absl::string_view region) {
  return Refused(absl::StatusCode::kInternal, Rejection::kRegion,
                 absl::StrCat("region ", Quote(region), " was shrunk"));
}

absl::Status RegionsOff(RegionKind kind) {
  return absl::UnimplementedError(absl::StrCat(
      "this server takes no ", kind == RegionKind::kSystem ? "system" : "CUDA", " shared memory"));
}

absl::Status RegionRefused(absl::string_view region, const RegionSpec& spec,
                           const RegionRefusal& refusal) {
  const std::string name = absl::StrCat("region ", Quote(region));
  const int64_t found = refusal.found;
  switch (refusal.fault) {
    case RegionFault::kDisabled:
      return absl::UnimplementedError(absl::StrCat(name, ": ", RegionsOff(spec.kind()).message()));
    case RegionFault::kName:
      return Invalid(found == 0 ? "a region needs a name"
                                : absl::StrCat("a region's name has at most ", refusal.limit,
                                               " bytes, not ", found));
    case RegionFault::kNameInUse:
      return absl::AlreadyExistsError(absl::StrCat(name, " is registered already"));
    case RegionFault::kTooMany:
      return absl::ResourceExhaustedError(
          absl::StrCat(found, " regions are registered; max_regions is ", refusal.limit));
    case RegionFault::kTooLarge:
      return absl::ResourceExhaustedError(absl::StrCat(
          name, " has ", spec.size_bytes, " bytes; max_region_bytes is ", refusal.limit));
    case RegionFault::kPinnedLimit:
      return absl::ResourceExhaustedError(absl::StrCat(
          name, " has ", spec.size_bytes,
          " bytes, and with the other system regions more than max_pinned_bytes ", refusal.limit));
    case RegionFault::kSize:
      return Invalid(spec.size_bytes == 0
                         ? absl::StrCat(name, " has no bytes")
                         : absl::StrCat(name, " has ", found, " bytes, not ", spec.size_bytes));
    case RegionFault::kOffset:
      return Invalid(absl::StrCat("offset ", std::get<SystemRegionSource>(spec.source).offset,
                                  " of ", name, " is no multiple of the page size ",
                                  refusal.limit));
    case RegionFault::kKey:
      return Invalid(absl::StrCat(name, ": key not allowed"));
    case RegionFault::kHandle:
      return Invalid(absl::StrCat(name, ": handle cannot be opened"));
    case RegionFault::kDevice:
      return Invalid(absl::StrCat(name, ": this server has no device ", found));
    case RegionFault::kNoMemory:
      return absl::ResourceExhaustedError(
          absl::StrCat(name, ": the system cannot map or pin its ", spec.size_bytes, " bytes"));
  }
  return absl::InternalError(name);
}

}  // namespace swiglu::server::errors
