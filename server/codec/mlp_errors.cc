// SPDX-License-Identifier: Apache-2.0
//
// Codes and sentences about the loading of weights.
#include "server/codec/mlp_errors.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/shown_text.h"
#include "server/codec/error_parts.h"
#include "server/codec/errors.h"

namespace swiglu::server::errors {
namespace {

// The most of a reason that names the file of an MLP.
constexpr size_t kMaxReasonBytes = 2048;

// The code for a caller whose reload has failed with `code`. Files are not as they must be, unless
// there is no room for them, or the server is at fault.
absl::StatusCode ReloadCode(absl::StatusCode code) {
  const bool is_kept =
      code == absl::StatusCode::kResourceExhausted || code == absl::StatusCode::kInternal;
  return is_kept ? code : absl::StatusCode::kFailedPrecondition;
}

}  // namespace

absl::Status RepositoryNamed(absl::string_view repository) {
  return Invalid(absl::StrCat("repository_name is ", Quote(repository),
                              "; this server has no repository with a name"));
}

absl::Status UnknownMlp(absl::string_view mlp, absl::Span<const std::string> mlps) {
  const auto listed = mlps.subspan(0, kMaxListedModels);
  return absl::NotFoundError(absl::StrCat("unknown MLP ", Quote(mlp), ": this server has ",
                                          mlps.empty() ? "none" : absl::StrJoin(listed, ", "),
                                          MoreThan(listed, mlps)));
}

absl::Status NotAWholeMlp(const Model& model) {
  if (model.weights == nullptr) {
    return Invalid(absl::StrCat("model ", Quote(model.name), " has no weights to load"));
  }
  return Invalid(absl::StrCat("model ", Quote(model.name), " is a part of the MLP ",
                              Quote(model.series), "; load the whole MLP"));
}

absl::Status ReloadRefused(absl::string_view mlp, const ReloadRefusal& refusal) {
  const std::string weights = absl::StrCat("the weights of ", Quote(mlp));
  switch (refusal.fault) {
    case ReloadFault::kLoading:
      return absl::UnavailableError(
          absl::StrCat(weights, " are still being loaded for the first time"));
    case ReloadFault::kUnderWay:
      return absl::AbortedError(absl::StrCat(weights, " are being loaded by another call already"));
    case ReloadFault::kStopping:
      return Draining();
    case ReloadFault::kCancelled:
      return Cancelled("before the weights were replaced");
    case ReloadFault::kFailed:
      break;
  }
  return absl::Status(
      ReloadCode(refusal.status.code()),
      absl::StrCat(weights, " stay as they were: ",
                   ShownText(std::string(refusal.status.message()), kMaxReasonBytes)));
}

}  // namespace swiglu::server::errors
