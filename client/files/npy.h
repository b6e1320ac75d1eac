// SPDX-License-Identifier: Apache-2.0
//
// NumPy's .npy format, versions 1.0, 2.0 and 3.0, as far as this service can use it: FP16 and FP32,
// little-endian, row-major, or in Fortran's order where that is the same. The format is described
// in NumPy's documentation (numpy.lib.format).
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "swiglu/tensor.h"

namespace swiglu::files {

// The tensor in `file`, the bytes of a whole .npy file, which it borrows. INVALID_ARGUMENT, one
// sentence that begins with `path`, for anything but a file that is right to the last byte. NaN and
// infinity are data.
absl::StatusOr<client::TensorView> ParseNpy(absl::string_view path,
                                            absl::Span<const std::byte> file);

// What goes before the bytes of a tensor in a .npy file. INVALID_ARGUMENT for BF16, which the
// format cannot name.
absl::StatusOr<std::string> NpyHeader(client::Dtype dtype, absl::Span<const int64_t> shape);

}  // namespace swiglu::files
