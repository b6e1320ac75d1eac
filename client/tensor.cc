// SPDX-License-Identifier: Apache-2.0
//
// The names of dtypes, the text of shapes and the sizes of tensors.
#include "swiglu/tensor.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace swiglu::client {
namespace {

constexpr Dtype kDtypes[] = {Dtype::kFp16, Dtype::kBf16, Dtype::kFp32};

// Error messages show at most this many dimensions of a shape.
constexpr size_t kMaxShownDims = 16;

}  // namespace

absl::string_view DatatypeName(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFp16:
      return "FP16";
    case Dtype::kBf16:
      return "BF16";
    case Dtype::kFp32:
      return "FP32";
  }
  return "unknown";
}

absl::optional<Dtype> ParseDatatype(absl::string_view name) {
  for (const Dtype dtype : kDtypes) {
    if (name == DatatypeName(dtype)) return dtype;
  }
  return absl::nullopt;
}

std::string FormatShape(absl::Span<const int64_t> shape) {
  if (shape.size() <= kMaxShownDims) return absl::StrCat("[", absl::StrJoin(shape, ","), "]");
  return absl::StrCat("[", absl::StrJoin(shape.subspan(0, kMaxShownDims), ","), ",... (",
                      shape.size(), " dims)]");
}

absl::StatusOr<int64_t> TensorBytes(absl::string_view name, Dtype dtype,
                                    absl::Span<const int64_t> shape) {
  if (!ParseDatatype(DatatypeName(dtype))) {
    return absl::InvalidArgumentError(absl::StrCat(
        "dtype of '", name, "' is ", static_cast<int>(dtype), "; it is FP16, BF16 or FP32"));
  }
  if (std::any_of(shape.begin(), shape.end(), [](int64_t dim) { return dim < 0; })) {
    return absl::InvalidArgumentError(
        absl::StrCat("shape of '", name, "' has a negative dimension: ", FormatShape(shape)));
  }
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  int64_t bytes = ElementBytes(dtype);
  for (const int64_t dim : shape) {
    if (bytes > std::numeric_limits<int64_t>::max() / dim) {
      return absl::InvalidArgumentError(
          absl::StrCat("shape of '", name, "' is too large: ", FormatShape(shape)));
    }
    bytes *= dim;
  }
  return bytes;
}

Tensor::Tensor(Dtype dtype, Shape shape, int64_t size_bytes)
    : dtype_(dtype),
      shape_(std::move(shape)),
      size_bytes_(static_cast<size_t>(size_bytes)),
      bytes_(std::make_unique_for_overwrite<std::byte[]>(size_bytes_)) {}

}  // namespace swiglu::client
