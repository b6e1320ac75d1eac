// SPDX-License-Identifier: Apache-2.0
//
// What the sources of the errors share: quoted text, lists that are cut, and the reason under which
// a refusal is counted. For these sources alone.
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "server/core/observer.h"

namespace swiglu::server::errors {

// The longest piece of a caller's text that an error repeats: trailers have to stay small.
inline constexpr size_t kMaxQuotedBytes = 128;
// The most models that an error names. There may be hundreds.
inline constexpr size_t kMaxListedModels = 12;

// `text` as people may see it, cut if it is long.
std::string Cut(absl::string_view text);
// The same in quotation marks.
std::string Quote(absl::string_view text);

// What follows a list that was cut.
template <typename T>
std::string MoreThan(absl::Span<const T> listed, absl::Span<const T> all) {
  const size_t num_left_out = all.size() - listed.size();
  return num_left_out == 0 ? "" : absl::StrCat(" and ", num_left_out, " more");
}

absl::Status Invalid(absl::string_view message);
// A refusal that is counted under `reason`, which its code alone does not tell.
absl::Status Refused(absl::StatusCode code, Rejection reason, absl::string_view message);

}  // namespace swiglu::server::errors
