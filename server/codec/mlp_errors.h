// SPDX-License-Identifier: Apache-2.0
//
// The refusals of calls that load the weights of an MLP anew. `mlp` is the name by which clients
// know the whole MLP. See errors.h.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "server/core/mlp_reloader.h"
#include "server/core/model.h"

namespace swiglu::server::errors {

absl::Status RepositoryNamed(absl::string_view repository);
// Lists the first of `mlps`, the MLPs that there are.
absl::Status UnknownMlp(absl::string_view mlp, absl::Span<const std::string> mlps);
// `model` is not a whole MLP: a part of one, or element-wise.
absl::Status NotAWholeMlp(const Model& model);
// Contains the path of a file if that file is at fault.
absl::Status ReloadRefused(absl::string_view mlp, const ReloadRefusal& refusal);

}  // namespace swiglu::server::errors
