// SPDX-License-Identifier: Apache-2.0
//
// Messages as bytes: any order, any slices, unknown fields, what is no good protobuf, and the bound
// on what is beside the tensors.
#include "server/codec/infer_message.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "google/protobuf/stubs/logging.h"
#include "gtest/gtest.h"
#include "tests/rpc/decoding.h"
#include "tests/rpc/requests.h"

namespace swiglu::server {
namespace {

using inference::ModelInferRequest;

// --- The wire format

// The fields of a serialized message, each with its tag.
std::vector<std::string> SplitFields(const std::string& bytes) {
  std::vector<std::string> fields;
  size_t begin = 0;
  while (begin < bytes.size()) {
    const std::vector<grpc::Slice> slices = Sliced(bytes.substr(begin), bytes.size());
    SliceReader reader(slices);
    uint64_t tag = 0, size = 0;
    EXPECT_TRUE(reader.ReadVarint(&tag) && (tag & 7) == 2 && reader.ReadVarint(&size));
    const size_t field_bytes = reader.position() + size;
    fields.push_back(bytes.substr(begin, field_bytes));
    begin += field_bytes;
  }
  return fields;
}

ModelInferRequest RequestWithEverything() {
  ModelInferRequest request = GoodRequest(kBackwardBf16, {2, 3});
  request.set_model_version("1");
  request.set_id("an id");
  (*request.mutable_parameters())["timeout"].set_int64_param(1000000);
  request.add_outputs()->set_name("de");
  return request;
}

TEST(InferMessageTest, TakesFieldsInAnyOrder) {
  const std::string bytes = RequestWithEverything().SerializeAsString();
  const Decoded expected = Decode(bytes);
  ASSERT_TRUE(expected.status.ok());
  // Inputs and raw entries keep their order among themselves: it is their meaning.
  std::vector<std::string> inputs, raw, others;
  for (std::string& field : SplitFields(bytes)) {
    const int number = static_cast<unsigned char>(field[0]) >> 3;
    (number == 5 ? inputs : number == 7 ? raw : others).push_back(std::move(field));
  }
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    std::shuffle(others.begin(), others.end(), random);
    std::vector<int> kinds(inputs.size(), 0);
    kinds.insert(kinds.end(), raw.size(), 1);
    kinds.insert(kinds.end(), others.size(), 2);
    std::shuffle(kinds.begin(), kinds.end(), random);
    size_t next[3] = {0, 0, 0};
    std::string shuffled;
    for (const int kind : kinds) {
      shuffled += (kind == 0 ? inputs : kind == 1 ? raw : others)[next[kind]++];
    }
    EXPECT_TRUE(Decode(shuffled) == expected) << Decode(shuffled).status;
  }
}

TEST(InferMessageTest, SkipsUnknownFieldsAndGroups) {
  const std::string group = Tag(201, 3) + Tag(1, 0) + Varint(5) + Tag(2, 3) + Tag(2, 4) +
                            BytesField(3, "xyz") + Tag(201, 4);
  const std::string unknown[] = {Tag(100, 0) + Varint(1u << 31), Tag(101, 1) + std::string(8, 'x'),
                                 BytesField(102, "text"), Tag(103, 5) + std::string(4, 'x'), group};
  const std::vector<std::string> fields = SplitFields(RequestWithEverything().SerializeAsString());
  const Decoded expected = Decode(RequestWithEverything());
  for (const std::string& extra : unknown) {
    for (size_t place = 0; place <= fields.size(); ++place) {
      std::string bytes;
      for (size_t i = 0; i <= fields.size(); ++i) {
        if (i == place) bytes += extra;
        if (i < fields.size()) bytes += fields[i];
      }
      EXPECT_TRUE(Decode(bytes) == expected) << Decode(bytes).status;
    }
  }
}

TEST(InferMessageTest, RefusesGroupsThatAreDeepOrNeverEnd) {
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += Tag(200, 3);
  EXPECT_EQ(Decode(deep).status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_STATUS(Decode(Tag(200, 3) + Tag(1, 0) + Varint(1)).status, kInvalidArgument,
                "malformed ModelInferRequest: field 200 at byte 0");
  EXPECT_STATUS(Decode(Tag(200, 3) + Tag(201, 4)).status, kInvalidArgument,
                "malformed ModelInferRequest: field 200 at byte 0");
  EXPECT_STATUS(Decode(Tag(200, 4)).status, kInvalidArgument,
                "malformed ModelInferRequest: field 200 at byte 0");
}

TEST(InferMessageTest, SaysWhereAMessageIsMalformed) {
  const std::string name = BytesField(1, kForwardFp16);  // 21 bytes
  ASSERT_EQ(name.size(), 21u);
  const std::pair<std::string, std::string> cases[] = {
      {std::string(1, '\x80'), "no field at byte 0"},             // half a tag
      {name + std::string(1, '\x07'), "no field at byte 21"},     // field 0
      {name + std::string(1, '\x00'), "no field at byte 21"},     // field 0
      {name + std::string(10, '\xff'), "no field at byte 21"},    // an overlong tag
      {name + Varint(uint64_t{1} << 35), "no field at byte 21"},  // past the last field number
      {name + Tag(9, 6), "field 9 at byte 21"},                   // no such wire type
      {name + Tag(9, 0), "field 9 at byte 21"},                   // no value
      {name + Tag(9, 0) + std::string(11, '\x80'), "field 9 at byte 21"},
      {name + Tag(9, 1) + "1234567", "field 9 at byte 21"},           // seven of eight bytes
      {name + Tag(9, 5) + "123", "field 9 at byte 21"},               // three of four
      {name + Tag(7, 2) + Varint(5) + "1234", "field 7 at byte 21"},  // raw, cut short
      {name + Tag(7, 2), "field 7 at byte 21"},                       // raw without a length
      {name + Tag(7, 2) + Varint(~uint64_t{0}), "field 7 at byte 21"},
      {name + Tag(2, 2) + Varint(~uint64_t{0}), "field 2 at byte 21"},
      {name + Tag(2, 2) + Varint(uint64_t{1} << 63), "field 2 at byte 21"},
      // Lengths and tags of six bytes, of fields that the generated parser never sees.
      {name + Tag(7, 2) + std::string("\x81\x80\x80\x80\x80\x00r", 7), "field 7 at byte 21"},
      {name + std::string("\xba\x80\x80\x80\x80\x00\x01r", 8), "no field at byte 21"},
      {name + BytesField(5, std::string(1, '\x0a')), "field 5 at byte 21"},  // inside an input
      {name + BytesField(3, "\xff\xfe"), "field 3 at byte 21"},              // not UTF-8
      {BytesField(7, "raw") + name + BytesField(3, "\xff\xfe"), "field 3 at byte 26"},
      {name + Tag(200, 3) + Tag(0, 0) + Varint(1) + Tag(200, 4), "field 200 at byte 21"},
  };
  for (const auto& [bytes, where] : cases) {
    EXPECT_STATUS(Decode(bytes).status, kInvalidArgument, "malformed ModelInferRequest: " + where);
  }
}

TEST(InferMessageTest, RefusesAnEmptyMessageForItsModel) {
  EXPECT_STATUS(Decode(std::string()).status, kNotFound,
                std::string("unknown model ''") + kKnownModels);
}

// Unpacked typed contents, and a raw entry under another wire type, are legal protobuf.
TEST(InferMessageTest, TakesUnpackedTypedContents) {
  ModelInferRequest request;
  request.set_model_name(kForwardFp32);
  std::string bytes = request.SerializeAsString();
  for (const char* name : {"e", "g"}) {
    const std::string one_float = Tag(6, 5) + std::string("\0\0\x80\x3f", 4);
    bytes += BytesField(5, BytesField(1, name) + BytesField(2, "FP32") + Tag(3, 0) + Varint(2) +
                               BytesField(5, one_float + one_float));
  }
  const Decoded decoded = Decode(bytes);
  ASSERT_TRUE(decoded.status.ok()) << decoded.status;
  EXPECT_EQ(decoded.inputs[0], std::string("\0\0\x80\x3f\0\0\x80\x3f", 8));
}

TEST(InferMessageTest, GivesTheSameResultHoweverTheMessageIsSliced) {
  for (const ModelInferRequest& request :
       {RequestWithEverything(), TypedRequest({1, 2, 3}, {4, 5, 6})}) {
    const std::string bytes = request.SerializeAsString();
    const Decoded expected = Decode(bytes);
    ASSERT_TRUE(expected.status.ok());
    for (size_t slice_bytes = 1; slice_bytes < bytes.size(); ++slice_bytes) {
      EXPECT_TRUE(Decode(Sliced(bytes, slice_bytes)) == expected) << slice_bytes;
    }
    for (size_t split = 0; split <= bytes.size(); ++split) {
      const std::vector<grpc::Slice> two = {grpc::Slice(bytes.substr(0, split)),
                                            grpc::Slice(bytes.substr(split))};
      EXPECT_TRUE(Decode(two) == expected) << "split at " << split;
    }
  }
}

// A cut that falls between two fields leaves a valid message, which then lacks something.
TEST(InferMessageTest, RefusesAMessageCutAnywhere) {
  for (const ModelInferRequest& request :
       {RequestWithEverything(), TypedRequest({1, 2, 3}, {4, 5, 6})}) {
    const std::string bytes = request.SerializeAsString();
    for (size_t size = 0; size < bytes.size(); ++size) {
      const Decoded decoded = Decode(bytes.substr(0, size));
      const bool complete = ModelInferRequest().ParseFromString(bytes.substr(0, size));
      const bool malformed =
          absl::StartsWith(decoded.status.message(), "malformed ModelInferRequest: ");
      EXPECT_FALSE(decoded.status.ok()) << size;
      EXPECT_EQ(malformed, !complete) << size << ": " << decoded.status;
      if (malformed) {
        EXPECT_EQ(decoded.status.code(), absl::StatusCode::kInvalidArgument);
      }
    }
  }
}

// --- The bound on what is beside the tensors.

TEST(InferMessageTest, LeavesPackedTypedContentsInTheirSlices) {
  const std::vector<float> e(100'000, 1.5f), g(100'000, -2.0f);
  const std::string bytes = TypedRequest(e, g).SerializeAsString();
  const std::vector<grpc::Slice> slices = Sliced(bytes, 8192);
  InferMessage message;
  const absl::Status status = ParseInferMessage(slices, message);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_LT(message.envelope.ByteSizeLong(), 100u);
  ASSERT_EQ(message.typed.size(), 2u);
  EXPECT_EQ(message.typed[1].size_bytes, 400'000u);
  const Decoded decoded = Decode(slices);
  ASSERT_TRUE(decoded.status.ok()) << decoded.status;
  EXPECT_EQ(std::memcmp(decoded.inputs[0].data(), e.data(), 400'000), 0);
  EXPECT_EQ(std::memcmp(decoded.inputs[1].data(), g.data(), 400'000), 0);
}

TEST(InferMessageTest, TakesTypedContentsInSeveralRuns) {
  ModelInferRequest request = TypedRequest({1, 2}, {3, 4});
  const float five = 5;
  std::string run(reinterpret_cast<const char*>(&five), sizeof(five));
  // A second contents field of input g, which protobuf merges with the first.
  std::string input = request.inputs(1).SerializeAsString() + BytesField(5, BytesField(6, run));
  ModelInferRequest first = request;
  first.mutable_inputs()->RemoveLast();
  Decoded decoded = Decode(first.SerializeAsString() + BytesField(5, input));
  EXPECT_STATUS(decoded.status, kInvalidArgument,
                "input 'g' has 12 bytes; shape [2] of FP32 needs 8");
}

TEST(InferMessageTest, RefusesMoreThan64KiBBesideTheTensors) {
  const char kSentence[] = "request has more than 65536 bytes beside its tensors";
  ModelInferRequest request = GoodRequest(kForwardFp16, {2});
  const size_t rest = request.ByteSizeLong() - 2 * (1 + 1 + 4) + 4;  // without raw; id's own header
  request.set_id(std::string(65536 - rest, 'x'));
  EXPECT_TRUE(Decode(request).status.ok()) << Decode(request).status;
  request.set_id(request.id() + "x");
  EXPECT_STATUS(Decode(request).status, kResourceExhausted, kSentence);

  std::string inputs, raw_entries, unpacked;
  for (int i = 0; i < 40'000; ++i) inputs += BytesField(5, "");
  EXPECT_STATUS(Decode(inputs).status, kResourceExhausted, kSentence);
  for (int i = 0; i < 40'000; ++i) raw_entries += BytesField(7, "");
  EXPECT_STATUS(Decode(raw_entries).status, kResourceExhausted, kSentence);
  for (int i = 0; i < 40'000; ++i) unpacked += Tag(6, 5) + std::string(4, '\0');
  EXPECT_STATUS(Decode(BytesField(5, BytesField(5, unpacked))).status, kResourceExhausted,
                kSentence);
  const std::string int64s(100'000, '\1');
  EXPECT_STATUS(Decode(BytesField(5, BytesField(5, BytesField(3, int64s)))).status,
                kResourceExhausted, kSentence);
}

// The generated parser is the judge of what is a message. It is a little more lenient: it takes
// overlong lengths modulo 2^32, which ours refuses.
TEST(InferMessageTest, SurvivesMutatedBytes) {
  // Bad UTF-8 is worth a line on stderr to protobuf, each time.
  const google::protobuf::LogSilencer silencer;
  std::mt19937 random(7);
  const std::string goods[] = {RequestWithEverything().SerializeAsString(),
                               TypedRequest({1, 2, 3}, {4, 5, 6}).SerializeAsString()};
  int num_ok = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = goods[round % 2];
    const int num_changes = 1 + static_cast<int>(random() % 4);
    for (int i = 0; i < num_changes; ++i) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    const std::vector<grpc::Slice> slices = Sliced(bytes, 1 + random() % bytes.size());
    const Decoded decoded = Decode(slices);
    num_ok += decoded.status.ok();
    InferMessage message;
    if (ParseInferMessage(slices, message).ok()) {
      EXPECT_TRUE(ModelInferRequest().ParseFromString(bytes));
    }
    EXPECT_TRUE(Decode(bytes) == decoded);
  }
  // Changed tensor bytes are fine.
  EXPECT_GT(num_ok, 100);
}

// Whether the message takes the short way, cut into slices of that size.
bool IsPlain(const std::string& bytes, size_t slice_bytes) {
  const std::vector<grpc::Slice> slices = Sliced(bytes, slice_bytes);
  InferMessage message;
  EXPECT_TRUE(ParseInferMessage(slices, message).ok());
  return message.is_plain;
}

TEST(InferMessageTest, TakesTheShortWayWithWhatClientsSend) {
  const ModelInferRequest usual = GoodRequest(kForwardFp16, {100});
  const std::string bytes = usual.SerializeAsString();
  EXPECT_TRUE(IsPlain(bytes, bytes.size()));
  // The tensors may begin anywhere, the envelope not.
  const size_t envelope_bytes = bytes.size() - 2 * (2 + 200) - 2;
  EXPECT_TRUE(IsPlain(bytes, envelope_bytes + 10));
  EXPECT_FALSE(IsPlain(bytes, 10));

  ModelInferRequest with_parameters = usual;
  (*with_parameters.mutable_parameters())["priority"].set_int64_param(1);
  with_parameters.add_outputs()->set_name("h");
  const std::string more = with_parameters.SerializeAsString();
  EXPECT_TRUE(IsPlain(more, more.size()));

  const std::string typed = TypedRequest({1, 2}, {3, 4}).SerializeAsString();
  EXPECT_FALSE(IsPlain(typed, typed.size()));
  ModelInferRequest long_id = usual;
  long_id.set_id(std::string(4000, 'x'));
  const std::string longer = long_id.SerializeAsString();
  EXPECT_FALSE(IsPlain(longer, longer.size()));
}

}  // namespace
}  // namespace swiglu::server
