// SPDX-License-Identifier: Apache-2.0
//
// The choice between the CPU and CUDA devices, and its sentences.
#include "server/gpu/device_choice.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace swiglu::server {
namespace {

void AppendDevice(std::string* out, const DeviceInfo& device) {
  absl::StrAppend(out, "device ", device.ordinal, " ", device.name);
}

absl::StatusOr<std::vector<DeviceInfo>> Select(absl::Span<const int> ordinals,
                                               const std::vector<DeviceInfo>& found) {
  if (ordinals.empty()) return found;
  std::vector<DeviceInfo> selected;
  for (int ordinal : ordinals) {
    const auto has_ordinal = [ordinal](const DeviceInfo& d) { return d.ordinal == ordinal; };
    const auto device = std::find_if(found.begin(), found.end(), has_ordinal);
    if (device == found.end()) {
      return absl::InvalidArgumentError(absl::StrCat("CUDA device ", ordinal,
                                                     " does not exist; this host has ",
                                                     absl::StrJoin(found, ", ", AppendDevice)));
    }
    if (std::any_of(selected.begin(), selected.end(), has_ordinal)) {
      return absl::InvalidArgumentError(absl::StrCat("CUDA device ", ordinal, " is named twice"));
    }
    selected.push_back(*device);
  }
  return selected;
}

}  // namespace

absl::StatusOr<DeviceChoice> ChooseDevices(DeviceKind kind, absl::Span<const int> ordinals,
                                           const absl::StatusOr<std::vector<DeviceInfo>>& found) {
  if (kind == DeviceKind::kCpu) {
    if (ordinals.empty()) return DeviceChoice{{}, "cpu: asked for"};
    return absl::InvalidArgumentError(
        absl::StrCat("CUDA device ", ordinals.front(), " is named, but the CPU was asked for"));
  }
  if (!found.ok()) {
    if (kind == DeviceKind::kAuto && ordinals.empty()) {
      return DeviceChoice{{}, absl::StrCat("cpu: ", found.status().message())};
    }
    return absl::FailedPreconditionError(
        absl::StrCat("CUDA was asked for: ", found.status().message()));
  }
  absl::StatusOr<std::vector<DeviceInfo>> selected = Select(ordinals, *found);
  if (!selected.ok()) return selected.status();
  return DeviceChoice{*selected,
                      absl::StrCat("cuda: ", absl::StrJoin(*selected, ", ", AppendDevice))};
}

}  // namespace swiglu::server
