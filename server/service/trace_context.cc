// SPDX-License-Identifier: Apache-2.0
//
// The parts of a traceparent. See the header.
#include "server/service/trace_context.h"

#include <algorithm>

namespace swiglu::server {
namespace {

constexpr size_t kTraceVersionBytes = 2;
constexpr size_t kTraceIdBytes = 32;
constexpr size_t kParentIdBytes = 16;
constexpr size_t kTraceFlagsBytes = 2;

bool IsLowerHexDigit(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }

bool IsLowerHex(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), IsLowerHexDigit);
}

// An id of the standard: it is not zero.
bool IsTraceContextId(absl::string_view text) {
  return IsLowerHex(text) && text.find_first_not_of('0') != absl::string_view::npos;
}

}  // namespace

absl::string_view TraceIdOf(absl::string_view traceparent) {
  constexpr size_t kTraceIdAt = kTraceVersionBytes + 1;
  constexpr size_t kParentIdAt = kTraceIdAt + kTraceIdBytes + 1;
  constexpr size_t kFlagsAt = kParentIdAt + kParentIdBytes + 1;
  constexpr size_t kEnd = kFlagsAt + kTraceFlagsBytes;
  if (traceparent.size() < kEnd) return "";
  for (const size_t dash : {kTraceIdAt - 1, kParentIdAt - 1, kFlagsAt - 1}) {
    if (traceparent[dash] != '-') return "";
  }
  const absl::string_view version = traceparent.substr(0, kTraceVersionBytes);
  const absl::string_view trace_id = traceparent.substr(kTraceIdAt, kTraceIdBytes);
  const absl::string_view parent_id = traceparent.substr(kParentIdAt, kParentIdBytes);
  const absl::string_view flags = traceparent.substr(kFlagsAt, kTraceFlagsBytes);
  if (!IsLowerHex(version) || version == "ff" || !IsLowerHex(flags)) return "";
  if (!IsTraceContextId(trace_id) || !IsTraceContextId(parent_id)) return "";
  if (traceparent.size() == kEnd) return trace_id;
  // Only later versions have more, after a dash.
  return version != "00" && traceparent[kEnd] == '-' ? trace_id : absl::string_view();
}

}  // namespace swiglu::server
