// SPDX-License-Identifier: Apache-2.0
//
// Compares layers one by one. See the header.
#include "server/weights/layer_match.h"

#include <cstddef>

#include "absl/strings/str_cat.h"
#include "server/core/model.h"

namespace swiglu::server {
namespace {

absl::Status Misfit(const std::string& path, const MlpLayer& layer, const std::string& what) {
  return absl::FailedPreconditionError(absl::StrCat(path, ": layer ", layer.number, " ", what));
}

std::string ShapeText(const MlpLayer& layer) {
  return absl::StrCat(std::string(DatatypeName(layer.dtype)), " with H = ", layer.hidden,
                      " and I = ", layer.intermediate);
}

bool AreAlike(const MlpLayer& a, const MlpLayer& b) {
  return a.dtype == b.dtype && a.hidden == b.hidden && a.intermediate == b.intermediate;
}

}  // namespace

absl::Status CheckSameLayers(const std::string& path, const std::vector<MlpLayer>& served,
                             const std::vector<MlpLayer>& found) {
  for (size_t i = 0; i < served.size() || i < found.size(); ++i) {
    if (i == found.size() || (i < served.size() && served[i].number < found[i].number)) {
      return Misfit(path, served[i], "has no MLP; this server has a model of it");
    }
    if (i == served.size() || found[i].number < served[i].number) {
      return Misfit(path, found[i], "has an MLP; this server has no model of it");
    }
    if (!AreAlike(served[i], found[i])) {
      return Misfit(path, found[i],
                    absl::StrCat("is ", ShapeText(found[i]), "; this server's model of it is ",
                                 ShapeText(served[i])));
    }
  }
  return absl::OkStatus();
}

}  // namespace swiglu::server
