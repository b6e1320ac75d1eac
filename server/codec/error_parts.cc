// SPDX-License-Identifier: Apache-2.0
//
// Quotes text, and keeps the reason of a refusal in its status.
#include "server/codec/error_parts.h"

#include <optional>

#include "absl/strings/cord.h"
#include "server/base/shown_text.h"
#include "server/codec/errors.h"

namespace swiglu::server::errors {
namespace {

// Where a status keeps the reason that it is counted as, if its code does not tell. It stays in the
// process: gRPC sends the code and the message alone.
constexpr char kRejectionPayload[] = "swiglu/rejection";

}  // namespace

std::string Cut(absl::string_view text) {
  return ShownText({text.data(), text.size()}, kMaxQuotedBytes);
}

std::string Quote(absl::string_view text) { return absl::StrCat("'", Cut(text), "'"); }

absl::Status Invalid(absl::string_view message) { return absl::InvalidArgumentError(message); }

absl::Status Refused(absl::StatusCode code, Rejection reason, absl::string_view message) {
  absl::Status status(code, message);
  const char value = static_cast<char>(reason);
  status.SetPayload(kRejectionPayload, absl::Cord(absl::string_view(&value, 1)));
  return status;
}

std::optional<Rejection> RejectionOf(const absl::Status& status) {
  if (const auto payload = status.GetPayload(kRejectionPayload); payload.has_value()) {
    return static_cast<Rejection>(std::string(*payload)[0]);
  }
  switch (status.code()) {
    case absl::StatusCode::kDeadlineExceeded:
      return Rejection::kDeadline;
    case absl::StatusCode::kCancelled:
      return Rejection::kCancelled;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kUnimplemented:
      return Rejection::kInvalid;
    default:
      return std::nullopt;
  }
}

}  // namespace swiglu::server::errors
