// SPDX-License-Identifier: Apache-2.0
//
// Finds the trace that a caller says its request belongs to, in the form of the W3C's Trace Context
// (https://www.w3.org/TR/trace-context/). Pure.
#pragma once

#include "absl/strings/string_view.h"

namespace swiglu::server {

// The metadata that names the trace.
inline constexpr char kTraceParentMetadata[] = "traceparent";

// The 32 hex digits of the trace in `traceparent`, which is
// "00-<32 hex digits: trace>-<16: parent>-<2: flags>". "" if `traceparent` is malformed: the
// standard demands that such a value is ignored. A version after 00 may have more parts, which the
// standard demands to skip. The result is a part of `traceparent`.
absl::string_view TraceIdOf(absl::string_view traceparent);

}  // namespace swiglu::server
