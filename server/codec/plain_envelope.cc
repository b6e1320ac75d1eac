// SPDX-License-Identifier: Apache-2.0
//
// The walk over the envelope's outer fields, and over those of each input.
#include "server/codec/plain_envelope.h"

#include "proto/inference.pb.h"

namespace swiglu::server {
namespace {

using inference::ModelInferRequest;

// Every field of the envelope is length-delimited, and its tag one byte.
constexpr unsigned char PlainTag(int field_number) {
  return static_cast<unsigned char>(field_number << 3 | 2);
}
constexpr unsigned char kFirstTag = PlainTag(ModelInferRequest::kModelNameFieldNumber);
constexpr unsigned char kPlainInputTag = PlainTag(ModelInferRequest::kInputsFieldNumber);
constexpr unsigned char kPlainRawTag = PlainTag(ModelInferRequest::kRawInputContentsFieldNumber);
constexpr unsigned char kPlainContentsTag =
    PlainTag(ModelInferRequest::InferInputTensor::kContentsFieldNumber);
// Of an unpacked dim, which few clients send.
constexpr unsigned char kLengthDelimited = 2;

// A position in a stretch of bytes.
struct Cursor {
  const unsigned char* at;
  const unsigned char* end;

  size_t left() const { return static_cast<size_t>(end - at); }

  // Reads a length of one or two bytes, which is enough for any usual field, and moves to the value
  // behind it. False if the value is longer or not whole.
  bool ReadLength(size_t* length) {
    if (left() < 2) return at < end && *at == 0 ? (++at, *length = 0, true) : false;
    *length = *at & 0x7F;
    if (*at++ & 0x80) {
      if (*at & 0x80) return false;
      *length |= static_cast<size_t>(*at++) << 7;
    }
    return *length <= left();
  }
};

// Whether an input has nothing but length-delimited fields, and no typed contents.
bool IsPlainInput(Cursor input) {
  while (input.left() > 0) {
    const unsigned char tag = *input.at++;
    size_t length = 0;
    if ((tag & 7) != kLengthDelimited || tag >= kPlainContentsTag) return false;
    if (!input.ReadLength(&length)) return false;
    input.at += length;
  }
  return true;
}

}  // namespace

std::optional<PlainEnvelope> FindPlainEnvelope(absl::Span<const unsigned char> bytes) {
  PlainEnvelope envelope;
  Cursor cursor{bytes.data(), bytes.data() + bytes.size()};
  while (cursor.left() > 0 && *cursor.at != kPlainRawTag) {
    const unsigned char tag = *cursor.at++;
    size_t length = 0;
    if ((tag & 7) != kLengthDelimited || tag < kFirstTag || tag > kPlainRawTag) return std::nullopt;
    if (!cursor.ReadLength(&length)) return std::nullopt;
    if (tag == kPlainInputTag) {
      if (!IsPlainInput({cursor.at, cursor.at + length})) return std::nullopt;
      ++envelope.num_inputs;
    }
    cursor.at += length;
  }
  envelope.size_bytes = static_cast<size_t>(cursor.at - bytes.data());
  return envelope;
}

}  // namespace swiglu::server
