// SPDX-License-Identifier: Apache-2.0
//
// Metadata to models.
#include "client/bench/mlp_model.h"

#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "swiglu/client_mlp.h"

namespace swiglu::bench {
namespace {

// More than any server has.
constexpr int kMaxLayer = 1'000'000'000;

struct Rows {
  client::Dtype dtype;
  int64_t num_elements;
};

absl::StatusOr<Rows> RowsOf(client::Client& client, const std::string& model) {
  const absl::StatusOr<client::ModelInfo> info = client.ModelMetadata(model);
  if (!info.ok()) return info.status();
  if (!info->inputs.empty() && !info->inputs.front().shape.empty()) {
    const absl::optional<client::Dtype> dtype =
        client::ParseDatatype(info->inputs.front().datatype);
    const int64_t num_elements = info->inputs.front().shape.back();
    if (dtype && num_elements > 0) return Rows{*dtype, num_elements};
  }
  return absl::InternalError(
      absl::StrCat("bad metadata of '", model, "': they do not tell the rows of its input"));
}

std::string Describe(const Rows& rows) {
  return absl::StrCat("rows of ", rows.num_elements, " elements of ",
                      client::DatatypeName(rows.dtype));
}

}  // namespace

bool ReadMlpLayer(absl::string_view text, MlpChoice* choice) {
  const size_t colon = text.rfind(':');
  if (colon == absl::string_view::npos || colon == 0) return false;
  const absl::string_view layer = text.substr(colon + 1);
  if (layer.empty() || !absl::ascii_isdigit(static_cast<unsigned char>(layer.front())))
    return false;
  choice->name = std::string(text.substr(0, colon));
  return absl::SimpleAtoi(layer, &choice->first_layer) && choice->first_layer <= kMaxLayer;
}

absl::StatusOr<Model> AskForMlp(client::Client& client, const MlpChoice& choice) {
  Model model{.names = {}, .mlp = choice.name, .first_layer = choice.first_layer};
  if (choice.is_backward) {
    model.inputs = {"x", "dy"};
    model.outputs = {"dx"};
  } else {
    model.inputs = {"x"};
    model.outputs = {"y"};
  }
  for (int k = 0; k < choice.num_layers; ++k) {
    const client::Mlp mlp = client.Mlp(choice.name, choice.first_layer + k);
    model.names.push_back(choice.is_backward ? mlp.backward_model() : mlp.forward_model());
    const absl::StatusOr<Rows> rows = RowsOf(client, model.names.back());
    if (!rows.ok()) return rows.status();
    const Rows first = k == 0 ? *rows : Rows{model.dtype, model.row_elements};
    if (rows->dtype != first.dtype || rows->num_elements != first.num_elements) {
      return absl::InvalidArgumentError(
          absl::StrCat("the layers of a load take equal tensors: '", model.names.back(), "' takes ",
                       Describe(*rows), ", '", model.name(), "' takes ", Describe(first)));
    }
    model.dtype = first.dtype;
    model.row_elements = first.num_elements;
  }
  return model;
}

absl::StatusOr<std::vector<WeightedSize>> TokensToBytes(const Model& mlp,
                                                        const std::vector<WeightedSize>& tokens) {
  std::vector<WeightedSize> sizes;
  for (const WeightedSize& size : tokens) {
    const absl::StatusOr<int64_t> bytes = client::TensorBytes(
        "x", mlp.dtype, {static_cast<int64_t>(mlp.inputs.size()), size.bytes, mlp.row_elements});
    if (!bytes.ok()) return bytes.status();
    sizes.push_back({*bytes, size.weight});
  }
  return sizes;
}

int64_t NumTokens(const Model& mlp, int64_t request_bytes) {
  return NumElements(mlp, request_bytes) / mlp.row_elements;
}

}  // namespace swiglu::bench
