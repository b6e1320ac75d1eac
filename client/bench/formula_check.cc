// SPDX-License-Identifier: Apache-2.0
//
// Chooses elements, and compares their outputs with the formulas of client/check.
#include "client/bench/formula_check.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/check/formula.h"

namespace swiglu::bench {
namespace {

constexpr int64_t kMaxElements = int64_t{1} << 20;

// A prime, so that the elements of a large request have all positions in a vector.
constexpr int64_t kStep = 7919;

// What the outputs of element k should be, in the order of the model's outputs.
std::vector<check::Expected> ExpectOutputs(const RequestData& data, int64_t k) {
  const client::Dtype dtype = data.model().dtype;
  const auto input = [&](size_t number) {
    return check::ElementAt(dtype, data.input(number).data(), k);
  };
  if (data.model().inputs.size() == 2) return {check::ExpectForward(dtype, input(0), input(1))};
  const check::ExpectedResults expected =
      check::ExpectBackward(dtype, input(0), input(1), input(2));
  return {expected.h, expected.df, expected.de};
}

}  // namespace

absl::Status CheckByFormula(const RequestData& data, absl::Span<const std::byte> answer) {
  const Model& model = data.model();
  const int64_t num_elements = data.num_elements();
  const int64_t num_checked = std::min(num_elements, kMaxElements);
  for (int64_t i = 0; i < num_checked; ++i) {
    const int64_t first = i * num_elements / num_checked;
    const int64_t end = (i + 1) * num_elements / num_checked;
    const int64_t k = first + i * kStep % (end - first);
    const std::vector<check::Expected> right = ExpectOutputs(data, k);
    for (size_t j = 0; j < model.outputs.size(); ++j) {
      const int64_t offset = static_cast<int64_t>(j) * TensorBytes(model, num_elements);
      const double found = check::ElementAt(model.dtype, answer.data() + offset, k);
      if (right[j].IsRight(found)) continue;
      return absl::DataLossError(absl::StrCat(
          "wrong result: element ", k, " of output '", model.outputs[j], "' of '", model.name(),
          "' is ", found, "; the formula gives ", right[j].low, " to ", right[j].high));
    }
  }
  return absl::OkStatus();
}

}  // namespace swiglu::bench
