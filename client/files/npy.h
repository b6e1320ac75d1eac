// SPDX-License-Identifier: Apache-2.0
//
// NumPy's .npy format, versions 1.0, 2.0 and 3.0, for the arrays that this service can use: FP16
// and FP32, little-endian, row-major. An array in Fortran order is accepted if its shape makes both
// orders the same. NumPy's documentation describes the format (numpy.lib.format).
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "swiglu/tensor.h"

namespace swiglu::files {

// Whether a file that begins with `bytes` is a .npy file, going by its magic.
bool IsNpy(absl::Span<const std::byte> bytes);

// The tensor in `file`, which has the bytes of a whole .npy file. The tensor borrows these bytes.
// INVALID_ARGUMENT if the file is malformed, or has even one byte too few or too many. The error
// message is one sentence that begins with `path`. NaN and infinity are valid data.
absl::StatusOr<client::TensorView> ParseNpy(absl::string_view path,
                                            absl::Span<const std::byte> file);

// The bytes that come before a tensor's bytes in a .npy file. INVALID_ARGUMENT for BF16, because
// the format has no name for it.
absl::StatusOr<std::string> NpyHeader(client::Dtype dtype, absl::Span<const int64_t> shape);

}  // namespace swiglu::files
