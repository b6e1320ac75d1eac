// SPDX-License-Identifier: Apache-2.0
//
// The first sticky error wins; all others are told each time.
#include "server/gpu/device_faults.h"

#include <chrono>
#include <string>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/log/log.h"

namespace swiglu::server {
namespace {

// The payload of a sticky status: the ordinal, a space and the description.
constexpr absl::string_view kStickyPayload = "swiglu/sticky_device_error";

}  // namespace

absl::Status StickyStatus(int ordinal, absl::string_view description) {
  absl::Status status = absl::InternalError(absl::StrCat("device ", ordinal, " failed"));
  status.SetPayload(kStickyPayload, absl::Cord(absl::StrCat(ordinal, " ", description)));
  return status;
}

void DeviceFaults::Report(int ordinal, DeviceError kind, absl::string_view description) {
  const bool is_sticky = kind == DeviceError::kSticky;
  int none = kNoDevice;
  if (is_sticky && !failed_device_.compare_exchange_strong(none, ordinal)) return;
  if (observer_ != nullptr) observer_->DeviceFailed(ordinal, kind);
  if (is_sticky) {
    LOG(ERROR, "device {} failed for good: {}", ordinal, description);
  } else {
    LOG_EVERY(ERROR, std::chrono::seconds(1), "device {}: {}", ordinal, description);
  }
}

void DeviceFaults::ReportSticky(const absl::Status& status) {
  const auto payload = status.GetPayload(kStickyPayload);
  if (!payload.has_value()) return;
  const std::string text(*payload);
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(text, absl::MaxSplits(' ', 1));
  int ordinal = kNoDevice;
  CHECK(absl::SimpleAtoi(parts.first, &ordinal));
  Report(ordinal, DeviceError::kSticky, parts.second);
}

std::optional<int> DeviceFaults::failed_device() const {
  const int ordinal = failed_device_.load();
  if (ordinal == kNoDevice) return std::nullopt;
  return ordinal;
}

}  // namespace swiglu::server
