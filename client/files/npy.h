// SPDX-License-Identifier: Apache-2.0
//
// NumPy's .npy format, versions 1.0, 2.0 and 3.0, for the arrays that this service can use: FP16
// and FP32, little-endian, row-major. Fortran's order is accepted if it is the same for that shape.
// The format is described in NumPy's documentation (numpy.lib.format).
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "swiglu/tensor.h"

namespace swiglu::files {

// The tensor in `file`, the bytes of a whole .npy file, which it borrows. INVALID_ARGUMENT if the
// file is not exactly right, down to its last byte. The error is one sentence that begins with
// `path`. NaN and infinity are data.
absl::StatusOr<client::TensorView> ParseNpy(absl::string_view path,
                                            absl::Span<const std::byte> file);

// The bytes in front of a tensor's bytes in a .npy file. INVALID_ARGUMENT for BF16, for which the
// format has no name.
absl::StatusOr<std::string> NpyHeader(client::Dtype dtype, absl::Span<const int64_t> shape);

}  // namespace swiglu::files
