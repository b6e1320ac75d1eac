// SPDX-License-Identifier: Apache-2.0
//
// Calls the check, and puts a wrong element into words.
#include "client/cli/result_check.h"

#include <algorithm>
#include <cstdint>
#include <thread>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "client/check/tensor_check.h"

namespace swiglu::cli {
namespace {

// The position of an element in each dimension. REQUIRES: the shape has an element `index`.
std::vector<int64_t> PositionOf(int64_t index, const client::Shape& shape) {
  std::vector<int64_t> position(shape.size());
  for (size_t k = shape.size(); k-- > 0;) {
    position[k] = index % shape[k];
    index /= shape[k];
  }
  return position;
}

}  // namespace

absl::StatusOr<std::vector<double>> CheckResults(const Inputs& inputs,
                                                 const std::vector<std::string>& names,
                                                 const std::vector<client::Tensor>& results) {
  check::Call call;
  call.dtype = results[0].dtype();
  for (const client::TensorView& input : inputs.tensors) call.inputs.push_back(input.bytes);
  for (const client::Tensor& result : results) call.results.push_back(result.bytes());
  const auto num_cores = static_cast<int>(std::thread::hardware_concurrency());
  const check::Report report = check::CheckCall(call, std::max(num_cores, 1));
  if (!report.first_wrong.has_value()) return report.largest_ulp;
  const check::WrongElement& wrong = *report.first_wrong;
  return absl::DataLossError(
      absl::StrFormat("wrong result: %s%s is %.9g, want %.9g (error %.3g ulp)", names[wrong.result],
                      client::FormatShape(PositionOf(wrong.index, results[0].shape())), wrong.found,
                      wrong.exact, wrong.error_ulp));
}

}  // namespace swiglu::cli
