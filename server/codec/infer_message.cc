// SPDX-License-Identifier: Apache-2.0
//
// The walk over protobuf's wire format. What it copies is bounded before it is copied.
#include "server/codec/infer_message.h"

#include <algorithm>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/codec/errors.h"
#include "server/codec/plain_envelope.h"

namespace swiglu::server {
namespace {

using inference::InferTensorContents;
using inference::ModelInferRequest;
using Input = ModelInferRequest::InferInputTensor;

constexpr char kMessageType[] = "ModelInferRequest";

// Protobuf's wire types.
enum WireType : int {
  kVarint = 0,
  kFixed64 = 1,
  kBytes = 2,
  kGroup = 3,
  kEndGroup = 4,
  kFixed32 = 5
};

// Groups are gone from proto3, but an unknown field may be one; they nest no deeper than this.
constexpr int kMaxGroupDepth = 32;

// Moves past the value of one field whose tag has been read. False if it is cut short or not valid.
bool SkipValue(SliceReader& reader, uint32_t tag, int depth) {
  uint64_t value = 0;
  uint32_t inner = 0;  // a tag, or a length
  switch (static_cast<int>(tag & 7)) {
    case kVarint:
      return reader.ReadVarint(&value);
    case kFixed64:
      return reader.Skip(8);
    case kBytes:
      return reader.ReadVarint(&inner) && reader.Skip(inner);
    case kFixed32:
      return reader.Skip(4);
    case kGroup:
      if (depth == kMaxGroupDepth) return false;
      while (reader.ReadVarint(&inner)) {
        if ((inner & 7) == kEndGroup) return (inner >> 3) == (tag >> 3);
        if (!SkipValue(reader, inner, depth + 1)) return false;
      }
      return false;
    default:
      return false;
  }
}

absl::Status MalformedField(uint32_t tag, size_t position) {
  return errors::Malformed(kMessageType, absl::StrCat("field ", tag >> 3, " at byte ", position));
}

constexpr uint32_t BytesTag(int field_number) {
  return static_cast<uint32_t>(field_number) << 3 | kBytes;
}
constexpr uint32_t kRawTag = BytesTag(ModelInferRequest::kRawInputContentsFieldNumber);
constexpr uint32_t kInputTag = BytesTag(ModelInferRequest::kInputsFieldNumber);
constexpr uint32_t kContentsTag = BytesTag(Input::kContentsFieldNumber);
constexpr uint32_t kPackedFp32Tag = BytesTag(InferTensorContents::kFp32ContentsFieldNumber);

// One field: where it begins, and its value; `size` is that of the value where it is kBytes.
struct Field {
  uint32_t tag = 0;
  SliceReader begin;
  SliceReader value;
  size_t size = 0;
};

// Reads one field and moves past it. False, with `field.tag` 0 if there is not even a tag, when it
// is not whole.
bool ReadField(SliceReader& reader, Field& field) {
  field.begin = reader;
  field.tag = 0;
  uint32_t tag = 0;
  // Field numbers begin at 1.
  if (!reader.ReadVarint(&tag) || tag < 8) return false;
  field.tag = tag;
  if ((tag & 7) != kBytes) {
    field.value = reader;
    return SkipValue(reader, tag, 0);
  }
  uint32_t size = 0;
  if (!reader.ReadVarint(&size)) return false;
  field.value = reader;
  field.size = size;
  return reader.Skip(field.size);
}

// Calls `use(field, end)` for each field of the message that is `field`'s value, `end` standing
// behind the field. False if they are not whole, or do not end where the message does.
template <typename Use>
bool ForEachField(const Field& message, Use use) {
  SliceReader reader = message.value;
  const size_t end = reader.position() + message.size;
  while (reader.position() < end) {
    Field field{0, reader, reader, 0};
    if (!ReadField(reader, field) || reader.position() > end) return false;
    use(field, reader.position());
  }
  return true;
}

// The one packed run of fp32_contents that an input has, if that is all of its fp32_contents.
TensorBytes FindPackedFp32(const Field& input) {
  TensorBytes found{input.value, 0};
  int num_runs = 0;
  const auto look_at = [&](const Field& field, size_t) {
    if (field.tag >> 3 != InferTensorContents::kFp32ContentsFieldNumber) return;
    ++num_runs;
    if (field.tag == kPackedFp32Tag && field.size % sizeof(float) == 0) {
      found = {field.value, field.size};
    }
  };
  const bool whole = ForEachField(input, [&](const Field& field, size_t) {
    if (field.tag == kContentsTag && !ForEachField(field, look_at)) num_runs = 2;
  });
  if (!whole || num_runs != 1) found.size_bytes = 0;
  return found;
}

// Gathers the envelope, field by field, within its bound.
class EnvelopeBuilder {
 public:
  // False past the bound; nothing was copied then.
  bool Append(const Field& field, size_t end) {
    const size_t size = end - field.begin.position();
    if (!HasRoom(size)) return false;
    SliceReader copier = field.begin;
    copier.Append(&bytes_, size);
    Note(field);
    return true;
  }

  // Appends an input without the typed contents at `typed`.
  bool AppendInput(const Field& field, size_t end, const TensorBytes& typed) {
    if (typed.size_bytes == 0) return Append(field, end);
    // Lengths only shrink, so this is room enough.
    if (!HasRoom(end - field.begin.position() - typed.size_bytes)) return false;
    std::string input;
    ForEachField(field, [&](const Field& part, size_t part_end) {
      if (part.tag != kContentsTag) return AppendTo(part, part_end, input);
      std::string contents;
      ForEachField(part, [&](const Field& run, size_t run_end) {
        if (run.value.position() != typed.begin.position()) AppendTo(run, run_end, contents);
      });
      AppendBytes(kContentsTag, contents, input);
    });
    AppendBytes(kInputTag, input, bytes_);
    Note(field);
    return true;
  }

  // Parses what was gathered; an error says which field is to blame.
  absl::Status Parse(ModelInferRequest* request) const {
    if (request->ParseFromString(bytes_)) return absl::OkStatus();
    size_t begin = 0;
    for (const Part& part : parts_) {
      ModelInferRequest scratch;
      if (!scratch.ParseFromString(bytes_.substr(begin, part.end - begin))) {
        return MalformedField(part.tag, part.position);
      }
      begin = part.end;
    }
    return errors::Malformed(kMessageType, absl::StrCat("envelope of ", bytes_.size(), " bytes"));
  }

 private:
  bool HasRoom(size_t size) const { return size <= kMaxEnvelopeBytes - bytes_.size(); }

  static void AppendTo(const Field& field, size_t end, std::string& out) {
    SliceReader copier = field.begin;
    copier.Append(&out, end - field.begin.position());
  }

  static void AppendBytes(uint32_t tag, const std::string& value, std::string& out) {
    for (size_t number : {size_t{tag}, value.size()}) {
      for (; number >= 0x80; number >>= 7) out.push_back(static_cast<char>(number | 0x80));
      out.push_back(static_cast<char>(number));
    }
    out.append(value);
  }

  // One field of `bytes_`: its tag, where it began in the message, and where it ends in `bytes_`.
  struct Part {
    uint32_t tag;
    size_t position;
    size_t end;
  };

  void Note(const Field& field) {
    parts_.push_back({field.tag, field.begin.position(), bytes_.size()});
  }

  std::string bytes_;
  std::vector<Part> parts_;
};

// The longest envelope that counts as short.
constexpr size_t kMaxPlainBytes = 2048;

// Parses a message in which a short envelope lies in the first slice, before one raw entry or none
// for each input. False, with `message` in any state, if it is not such a one or not valid.
bool ParsePlainMessage(absl::Span<const grpc::Slice> slices, InferMessage& message) {
  message.Clear();
  if (slices.empty()) return false;
  const grpc::Slice& first = slices.front();
  const size_t searched_bytes = std::min(first.size(), kMaxPlainBytes);
  const std::optional<PlainEnvelope> plain = FindPlainEnvelope({first.begin(), searched_bytes});
  if (!plain.has_value()) return false;
  SliceReader reader(slices);
  reader.Skip(plain->size_bytes);
  while (reader.remaining() > 0) {
    Field field{0, reader, reader, 0};
    if (!ReadField(reader, field) || field.tag != kRawTag) return false;
    if (message.raw.size() == static_cast<size_t>(plain->num_inputs)) return false;
    message.raw.push_back({field.value, field.size});
  }
  message.typed.assign(plain->num_inputs, TensorBytes{SliceReader(), 0});
  return message.envelope.ParseFromArray(first.begin(), static_cast<int>(plain->size_bytes));
}

}  // namespace

absl::Status ParseInferMessage(absl::Span<const grpc::Slice> slices, InferMessage& message) {
  if (ParsePlainMessage(slices, message)) return absl::OkStatus();
  message.Clear();
  message.is_plain = false;
  EnvelopeBuilder envelope;
  SliceReader reader(slices);
  while (reader.remaining() > 0) {
    Field field{0, reader, reader, 0};
    const size_t begin = reader.position();
    if (!ReadField(reader, field)) {
      if (field.tag != 0) return MalformedField(field.tag, begin);
      return errors::Malformed(kMessageType, absl::StrCat("no field at byte ", begin));
    }
    bool fits = true;
    if (field.tag == kRawTag) {
      message.raw.push_back({field.value, field.size});
      // An empty entry costs more than its two bytes.
      fits = message.raw.size() <= kMaxEnvelopeBytes / sizeof(TensorBytes);
    } else if (field.tag == kInputTag) {
      message.typed.push_back(FindPackedFp32(field));
      fits = envelope.AppendInput(field, reader.position(), message.typed.back());
    } else {
      fits = envelope.Append(field, reader.position());
    }
    if (!fits) return errors::EnvelopeTooLarge(kMaxEnvelopeBytes);
  }
  return envelope.Parse(&message.envelope);
}

void InferMessage::Clear() {
  if (!is_plain) {
    *this = InferMessage();
    return;
  }
  envelope.Clear();
  raw.clear();
  typed.clear();
}

}  // namespace swiglu::server
