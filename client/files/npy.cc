// SPDX-License-Identifier: Apache-2.0
//
// The layout of a file: magic, version, length of the header, header, data. The header is the
// literal of a Python dict, padded with spaces and ended by a newline.
#include "client/files/npy.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/optional.h"

namespace swiglu::files {
namespace {

using client::Dtype;
using client::FormatShape;
using client::Shape;
using client::TensorView;

constexpr absl::string_view kMagic("\x93NUMPY", 6);
constexpr size_t kVersionBytes = 2;
// NumPy aligns the data to this many bytes.
constexpr size_t kAlignment = 64;
constexpr size_t kMaxHeaderBytes = size_t{1} << 20;

absl::Status Bad(absl::string_view path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
}

// The entries of the header.
struct NpyDict {
  absl::optional<std::string> descr;
  absl::optional<bool> fortran_order;
  absl::optional<Shape> shape;
};

// Reads the literal of a dict with exactly the keys of the format. Each method reads one item and
// returns whether it was there. After a false the parse must end.
class DictParser {
 public:
  explicit DictParser(absl::string_view text) : rest_(text) {}

  bool Parse(NpyDict& dict) {
    if (!Take('{')) return false;
    while (!Take('}')) {
      std::string key;
      if (!String(key) || !Take(':') || !Value(key, dict)) return false;
      if (Take(',')) continue;
      if (!Take('}')) return false;
      break;
    }
    SkipSpace();
    return rest_.empty() && dict.descr && dict.fortran_order && dict.shape;
  }

 private:
  bool Value(absl::string_view key, NpyDict& dict) {
    if (key == "descr" && !dict.descr) return String(dict.descr.emplace());
    if (key == "fortran_order" && !dict.fortran_order) return Bool(dict.fortran_order.emplace());
    if (key == "shape" && !dict.shape) return Tuple(dict.shape.emplace());
    return false;
  }

  void SkipSpace() { rest_ = absl::StripLeadingAsciiWhitespace(rest_); }

  bool Take(char c) {
    SkipSpace();
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }

  bool Take(absl::string_view word) {
    SkipSpace();
    if (rest_.substr(0, word.size()) != word) return false;
    rest_.remove_prefix(word.size());
    return true;
  }

  // Does not support escapes, because no key or type needs one.
  bool String(std::string& out) {
    SkipSpace();
    if (rest_.empty() || (rest_.front() != '\'' && rest_.front() != '"')) return false;
    const size_t end = rest_.find(rest_.front(), 1);
    if (end == absl::string_view::npos) return false;
    out = std::string(rest_.substr(1, end - 1));
    rest_.remove_prefix(end + 1);
    return true;
  }

  bool Bool(bool& out) {
    out = Take("True");
    return out || Take("False");
  }

  // Accepts (), (3,), (3, 4) and (3, 4,), but not (3), which is a number.
  bool Tuple(Shape& out) {
    if (!Take('(')) return false;
    bool ends_with_comma = false;
    while (!Take(')')) {
      if (!out.empty() && !ends_with_comma) return false;
      if (!Number(out.emplace_back())) return false;
      ends_with_comma = Take(',');
    }
    return out.size() != 1 || ends_with_comma;
  }

  bool Number(int64_t& out) {
    SkipSpace();
    size_t length = 0;
    while (length < rest_.size() && absl::ascii_isdigit(rest_[length])) ++length;
    const absl::string_view digits = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return absl::SimpleAtoi(digits, &out);
  }

  absl::string_view rest_;
};

absl::StatusOr<Dtype> ParseDescr(absl::string_view path, absl::string_view descr) {
  if (descr == "<f2") return Dtype::kFp16;
  if (descr == "<f4") return Dtype::kFp32;
  const std::string shown = absl::CHexEscape(descr.substr(0, 32));
  // NumPy with ml_dtypes writes '<V2'. Read and written again without ml_dtypes, it is '|V2'.
  if (descr == "<V2" || descr == "|V2") {
    return Bad(path, absl::StrCat("type '", shown,
                                  "' is how NumPy writes BF16 of ml_dtypes; .npy has no type for "
                                  "BF16; use .safetensors"));
  }
  const bool big_endian = descr == ">f2" || descr == ">f4";
  return Bad(path, absl::StrCat(big_endian ? "big-endian type '" : "type '", shown,
                                "' is not supported; .npy takes '<f2' (FP16) and '<f4' (FP32)"));
}

// Whether row-major and column-major order are the same for `shape`.
bool HasOneOrder(const Shape& shape) {
  const auto num_long =
      std::count_if(shape.begin(), shape.end(), [](int64_t dim) { return dim != 1; });
  return num_long <= 1 || std::find(shape.begin(), shape.end(), 0) != shape.end();
}

// Splits `file` into the text of the header and the data after it.
absl::Status SplitHeader(absl::string_view path, absl::string_view file, absl::string_view& header,
                         absl::string_view& data) {
  if (file.substr(0, kMagic.size()) != kMagic) return Bad(path, "not a .npy file: wrong magic");
  const size_t length_at = kMagic.size() + kVersionBytes;
  if (file.size() < length_at) return Bad(path, "truncated before its version");
  const int major = static_cast<uint8_t>(file[kMagic.size()]);
  const int minor = static_cast<uint8_t>(file[kMagic.size() + 1]);
  if (major < 1 || major > 3 || minor != 0) {
    return Bad(path, absl::StrCat("version ", major, ".", minor,
                                  " is not supported; expected 1.0, 2.0 or 3.0"));
  }
  const size_t length_bytes = major == 1 ? 2 : 4;
  const size_t header_at = length_at + length_bytes;
  if (file.size() < header_at) return Bad(path, "truncated before its header");
  size_t length = 0;
  for (size_t k = length_bytes; k-- > 0;) {
    length = length << 8 | static_cast<uint8_t>(file[length_at + k]);
  }
  if (length > kMaxHeaderBytes) {
    return Bad(path,
               absl::StrCat("header of ", length, " bytes; expected at most ", kMaxHeaderBytes));
  }
  if (file.size() - header_at < length) {
    return Bad(path, absl::StrCat("truncated in its header: it has ", file.size() - header_at,
                                  " of ", length, " bytes"));
  }
  header = file.substr(header_at, length);
  data = file.substr(header_at + length);
  return absl::OkStatus();
}

}  // namespace

bool IsNpy(absl::Span<const std::byte> bytes) {
  const absl::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return text.substr(0, kMagic.size()) == kMagic;
}

absl::StatusOr<TensorView> ParseNpy(absl::string_view path, absl::Span<const std::byte> file) {
  const absl::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  absl::string_view header;
  absl::string_view data;
  absl::Status status = SplitHeader(path, text, header, data);
  if (!status.ok()) return status;

  NpyDict dict;
  if (header.empty() || header.back() != '\n' || !DictParser(header).Parse(dict)) {
    return Bad(
        path,
        absl::StrCat("malformed header '",
                     absl::CHexEscape(absl::StripTrailingAsciiWhitespace(header.substr(0, 200))),
                     "'; expected a dict of descr, fortran_order and shape"));
  }
  absl::StatusOr<Dtype> dtype = ParseDescr(path, *dict.descr);
  if (!dtype.ok()) return dtype.status();
  if (*dict.fortran_order && !HasOneOrder(*dict.shape)) {
    return Bad(path, "Fortran order is not supported; expected row-major (C) order");
  }
  absl::StatusOr<int64_t> needed = client::TensorBytes("data", *dtype, *dict.shape);
  if (!needed.ok()) return Bad(path, needed.status().message());
  if (data.size() != static_cast<uint64_t>(*needed)) {
    return Bad(path,
               absl::StrCat("data has ", data.size(), " bytes; shape ", FormatShape(*dict.shape),
                            " of ", client::DatatypeName(*dtype), " needs ", *needed));
  }
  return TensorView{*dtype, *std::move(dict.shape), file.last(data.size())};
}

absl::StatusOr<std::string> NpyHeader(Dtype dtype, absl::Span<const int64_t> shape) {
  if (dtype == Dtype::kBf16) {
    return absl::InvalidArgumentError(".npy has no type for BF16; use .safetensors");
  }
  std::string dict = absl::StrCat("{'descr': '", dtype == Dtype::kFp16 ? "<f2" : "<f4",
                                  "', 'fortran_order': False, 'shape': (",
                                  absl::StrJoin(shape, ", "), shape.size() == 1 ? ",), }" : "), }");
  // The length of the header has 16 bits in version 1.0, and 32 bits in version 2.0.
  const auto padded = [&](size_t length_bytes) {
    const size_t before = kMagic.size() + kVersionBytes + length_bytes;
    const size_t total = before + dict.size() + 1;
    return (total + kAlignment - 1) / kAlignment * kAlignment - before;
  };
  const bool fits_16_bits = padded(2) <= 0xFFFF;
  const size_t length_bytes = fits_16_bits ? 2 : 4;
  const size_t length = padded(length_bytes);
  dict.resize(length - 1, ' ');
  dict.push_back('\n');

  std::string header(kMagic);
  header.push_back(fits_16_bits ? 1 : 2);
  header.push_back(0);
  for (size_t k = 0; k < length_bytes; ++k) {
    header.push_back(static_cast<char>(length >> (8 * k) & 0xFF));
  }
  return header + dict;
}

}  // namespace swiglu::files
