// SPDX-License-Identifier: Apache-2.0
//
// The .safetensors reader and writer: good files, and every way to be wrong.
#include "client/files/safetensors.h"

#include <time.h>

#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tests/client/bytes.h"
#include "tests/client/named_tensors.h"

namespace swiglu::files {
namespace {

using client::Dtype;
using client::Shape;

std::string Length(uint64_t value) {
  std::string bytes;
  for (int k = 0; k < 8; ++k) bytes.push_back(static_cast<char>(value >> (8 * k) & 0xFF));
  return bytes;
}

std::string File(const std::string& header, const std::string& data) {
  return Length(header.size()) + header + data;
}

std::string Message(const std::string& file) {
  const auto entries = ParseSafetensors("a.safetensors", AsBytes(file));
  EXPECT_FALSE(entries.ok());
  EXPECT_EQ(entries.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(entries.status().message());
}

constexpr char kTwo[] = R"({"__metadata__":{"format":"pt"},)"
                        R"("g":{"dtype":"BF16","shape":[2,2],"data_offsets":[4,12]},)"
                        R"("e":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}   )";
const std::string kTwoData = "abcdefghijkl";

TEST(SafetensorsTest, ReadsTensorsInTheOrderOfTheirBytes) {
  const std::string file = File(kTwo, kTwoData);
  const auto entries = ParseSafetensors("a.safetensors", AsBytes(file));
  ASSERT_TRUE(entries.ok()) << entries.status();
  ASSERT_EQ(entries->size(), 2u);
  EXPECT_EQ((*entries)[0].name, "e");
  EXPECT_EQ((*entries)[0].dtype, "F32");
  EXPECT_EQ((*entries)[1].name, "g");
  EXPECT_EQ((*entries)[1].shape, (Shape{2, 2}));
  EXPECT_EQ(AsText((*entries)[1].bytes), "efghijkl");
}

TEST(SafetensorsTest, FindsATensorByName) {
  const std::string file = File(kTwo, kTwoData);
  const auto tensor = FindSafetensor("a.safetensors", AsBytes(file), "g");
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_EQ(tensor->dtype, Dtype::kBf16);
  EXPECT_EQ(AsText(tensor->bytes), "efghijkl");
}

TEST(SafetensorsTest, NeedsANameForOneOfSeveral) {
  EXPECT_EQ(FindSafetensor("a.safetensors", AsBytes(File(kTwo, kTwoData)), "").status().message(),
            "a.safetensors: it holds 2 tensors (e, g); name one as FILE:TENSOR");
}

TEST(SafetensorsTest, FindsTheOnlyTensorWithoutAName) {
  const std::string file = File(R"({"x":{"dtype":"F16","shape":[],"data_offsets":[0,2]}})", "ab");
  const auto tensor = FindSafetensor("a.safetensors", AsBytes(file), "");
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_EQ(tensor->shape, Shape{});
}

TEST(SafetensorsTest, SaysWhichTensorsThereAre) {
  const auto status = FindSafetensor("a.safetensors", AsBytes(File(kTwo, kTwoData)), "x").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message(), "a.safetensors: no tensor 'x'; it holds e, g");
}

TEST(SafetensorsTest, LetsOtherDtypesBeUntilAskedFor) {
  const std::string file = File(R"({"e":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},)"
                                R"("i":{"dtype":"I64","shape":[1],"data_offsets":[2,10]}})",
                                "abcdefghij");
  EXPECT_TRUE(FindSafetensor("a.safetensors", AsBytes(file), "e").ok());
  EXPECT_EQ(FindSafetensor("a.safetensors", AsBytes(file), "i").status().message(),
            "a.safetensors: tensor 'i' is 'I64'; expected F16, BF16 or F32");
}

TEST(SafetensorsTest, TakesNullForMetadata) {
  const std::string file =
      File(R"({"__metadata__":null,"x":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}})", "ab");
  EXPECT_TRUE(FindSafetensor("a.safetensors", AsBytes(file), "x").ok());
}

TEST(SafetensorsTest, LetsUnknownFieldsOfAnEntryBe) {
  for (const char* value :
       {"1", "-1", "1.5", "true", "null", "\"F32\"", "[]", "[7,[8]]",
        R"({"dtype":"F32","shape":[9],"data_offsets":[1,2],"a":{"b":[{"shape":3}]}})"}) {
    for (const char* order : {"{\"x\":$,%}", "{%,\"x\":$}"}) {
      const std::string entry = absl::StrReplaceAll(
          order, {{"$", value}, {"%", R"("dtype":"F16","shape":[1,2],"data_offsets":[0,4])"}});
      const std::string file = File("{\"t\":" + entry + "}", "abcd");
      const auto tensor = FindSafetensor("a.safetensors", AsBytes(file), "t");
      ASSERT_TRUE(tensor.ok()) << entry << tensor.status();
      EXPECT_EQ(tensor->shape, (Shape{1, 2})) << entry;
    }
  }
}

TEST(SafetensorsTest, TakesUnknownFieldsAsDeepAsTheReferenceDoes) {
  const auto with_depth = [](size_t depth) {
    return File(R"({"t":{"dtype":"F16","shape":[1],"data_offsets":[0,2],"x":)" +
                    std::string(depth - 2, '[') + std::string(depth - 2, ']') + "}}",
                "ab");
  };
  EXPECT_TRUE(ParseSafetensors("a.safetensors", AsBytes(with_depth(127))).ok());
  EXPECT_EQ(Message(with_depth(128)), "a.safetensors: malformed header: it is nested too deeply");
}

// A file of many tensors of one element each.
std::string Many(int num_tensors) {
  std::string header = "{";
  for (int k = 0; k < num_tensors; ++k) {
    absl::StrAppend(&header, k == 0 ? "" : ",", "\"layers.", k, R"(":{"dtype":"F16","shape":[1],)",
                    R"("data_offsets":[)", 2 * k, ",", 2 * k + 2, "]}");
  }
  return File(header + "}", std::string(2 * static_cast<size_t>(num_tensors), 'x'));
}

// The CPU time of this thread for reading `file` so often.
absl::Duration ReadingTime(const std::string& file, int num_times) {
  const auto now = [] {
    timespec time = {};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return absl::DurationFromTimespec(time);
  };
  const absl::Duration start = now();
  for (int k = 0; k < num_times; ++k) {
    EXPECT_TRUE(FindSafetensor("a.safetensors", AsBytes(file), "layers.7").ok());
  }
  return now() - start;
}

// Reading one file of n tensors costs as much as reading 32 files of n / 32, but for what caches
// and sorting cost: were the work quadratic, it would cost 32 times as much.
TEST(SafetensorsTest, TimeGrowsWithTheHeaderAndNotWithItsSquare) {
  const absl::Duration many_small = ReadingTime(Many(256), 32);
  EXPECT_LT(ReadingTime(Many(32 * 256), 1), 8 * many_small);
}

TEST(SafetensorsTest, TakesTensorsWithoutElements) {
  const std::string file = File(R"({"z":{"dtype":"F16","shape":[0,9],"data_offsets":[2,2]},)"
                                R"("a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},)"
                                R"("y":{"dtype":"F16","shape":[0],"data_offsets":[0,0]}})",
                                "ab");
  EXPECT_TRUE(ParseSafetensors("a.safetensors", AsBytes(file)).ok());
}

TEST(SafetensorsTest, TakesAFileWithoutTensors) {
  EXPECT_TRUE(ParseSafetensors("a.safetensors", AsBytes(File("{}", ""))).ok());
}

TEST(SafetensorsTest, RefusesEveryTruncation) {
  const std::string file = File(kTwo, kTwoData);
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_FALSE(ParseSafetensors("a.safetensors", AsBytes(file.substr(0, size))).ok()) << size;
  }
}

TEST(SafetensorsTest, RefusesTrailingBytes) {
  EXPECT_EQ(Message(File(kTwo, kTwoData + "xy")),
            "a.safetensors: the last 2 bytes belong to no tensor");
}

TEST(SafetensorsTest, RefusesWrongLengths) {
  EXPECT_EQ(Message("short"), "a.safetensors: not a .safetensors file: it has 5 bytes");
  EXPECT_EQ(Message(Length(100'000'001) + "{}"),
            "a.safetensors: header of 100000001 bytes; expected at most 100000000");
  EXPECT_EQ(Message(Length(std::numeric_limits<uint64_t>::max()) + "{}"),
            "a.safetensors: header of 18446744073709551615 bytes; expected at most 100000000");
  EXPECT_EQ(Message(Length(3) + "{}"),
            "a.safetensors: truncated in its header: it has 2 of 3 bytes");
}

TEST(SafetensorsTest, RefusesMalformedJson) {
  EXPECT_EQ(Message(File("", "")),
            "a.safetensors: not a .safetensors file: its header does not begin with '{'");
  EXPECT_EQ(Message(File(" {}", "")),
            "a.safetensors: not a .safetensors file: its header does not begin with '{'");
  EXPECT_EQ(Message(File("{", "")), "a.safetensors: malformed header: no valid JSON");
  EXPECT_EQ(Message(File("{}x", "")), "a.safetensors: malformed header: no valid JSON");
  EXPECT_EQ(Message(File("{\"\xff\":{}}", "")), "a.safetensors: malformed header: no valid JSON");
  EXPECT_EQ(Message(File("{\"a\":" + std::string(100'000, '[') + "}", "")),
            "a.safetensors: malformed header: it is nested too deeply");
  EXPECT_EQ(Message(File(R"({"a":{},"a":{}})", "")),
            "a.safetensors: malformed header: 'a' is there twice");
  EXPECT_EQ(Message(File(R"({"a":{"shape":[1],"shape":[1]}})", "")),
            "a.safetensors: malformed header: 'shape' is there twice");
  for (const char* metadata : {R"({"a":1})", R"({"a":null})", R"({"a":{"b":"c"}})",
                               R"({"a":["b"]})", "1", "\"a\"", "[]", "true"}) {
    EXPECT_EQ(Message(File(std::string(R"({"__metadata__":)") + metadata + "}", "")),
              "a.safetensors: malformed header: __metadata__ is not a map of strings")
        << metadata;
  }
}

TEST(SafetensorsTest, RefusesMalformedEntries) {
  const auto with = [](const std::string& entry) {
    return Message(File("{\"t\":" + entry + "}", "abcd"));
  };
  constexpr char kMalformed[] =
      "a.safetensors: tensor 't' is malformed; expected dtype, shape and data_offsets";
  EXPECT_EQ(with("1"), kMalformed);
  EXPECT_EQ(with(R"(1,"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]})"), kMalformed);
  EXPECT_EQ(
      Message(File(R"({"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"t":1})", "abcd")),
      kMalformed);
  EXPECT_EQ(with("{}"), kMalformed);
  EXPECT_EQ(with(R"({"dtype":"F16","shape":[2]})"), kMalformed);
  EXPECT_EQ(with("null"), kMalformed);
  EXPECT_EQ(with(R"([{"dtype":"F16","shape":[2],"data_offsets":[0,4]}])"), kMalformed);
  EXPECT_EQ(with(R"({"x":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}})"), kMalformed);
  EXPECT_EQ(with(R"({"dtype":1,"shape":[2],"data_offsets":[0,4]})"),
            "a.safetensors: tensor 't' has a dtype that is no string");
  EXPECT_EQ(with(R"({"dtype":["F16"],"shape":[2],"data_offsets":[0,4]})"),
            "a.safetensors: tensor 't' has a dtype that is no string");
  for (const char* shape : {"2", "null", "\"2\"", "{}", "{\"2\":2}", "[-2]", "[2.0]", "[\"2\"]",
                            "[null]", "[true]", "[9223372036854775808]", "[[2]]", "[{},2]"}) {
    EXPECT_EQ(with(std::string(R"({"dtype":"F16","shape":)") + shape + R"(,"data_offsets":[0,4]})"),
              "a.safetensors: tensor 't' has a shape that is no list of dimensions")
        << shape;
  }
  for (const char* offsets : {"0", "[]", "[0]", "[0,2,4]", "[4,0]", "[-1,4]", "[0,1e1]"}) {
    EXPECT_EQ(with(std::string(R"({"dtype":"F16","shape":[2],"data_offsets":)") + offsets + "}"),
              "a.safetensors: tensor 't' has data_offsets that are no begin and end")
        << offsets;
  }
}

TEST(SafetensorsTest, RefusesOffsetsBeyondTheData) {
  const auto with = [](const std::string& end) {
    return Message(
        File(R"({"t":{"dtype":"F16","shape":[2],"data_offsets":[0,)" + end + "]}}", "abcd"));
  };
  EXPECT_EQ(with("5"), "a.safetensors: tensor 't' ends at byte 5 of the data, which has 4");
  EXPECT_EQ(with("9223372036854775807"),
            "a.safetensors: tensor 't' ends at byte 9223372036854775807 of the data, which has 4");
}

TEST(SafetensorsTest, RefusesSizesThatAreNotThoseOfTheShape) {
  EXPECT_EQ(Message(File(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", "abcd")),
            "a.safetensors: tensor 't' has 4 bytes; shape [2] of F32 needs 8");
  EXPECT_EQ(
      Message(File(R"({"t":{"dtype":"F16","shape":[4611686018427387904,4],"data_offsets":[0,0]}})",
                   "")),
      "a.safetensors: shape of 't' is too large: [4611686018427387904,4]");
}

TEST(SafetensorsTest, RefusesHolesAndOverlaps) {
  const auto two = [](const std::string& second_offsets, const std::string& data) {
    return Message(File(R"({"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},)"
                        R"("b":{"dtype":"F16","shape":[1],"data_offsets":)" +
                            second_offsets + "}}",
                        data));
  };
  EXPECT_EQ(two("[3,5]", "abcde"),
            "a.safetensors: tensor 'b' begins at byte 3 of the data; expected 2");
  EXPECT_EQ(two("[1,3]", "abc"),
            "a.safetensors: tensor 'b' begins at byte 1 of the data; expected 2");
  EXPECT_EQ(two("[0,2]", "ab"),
            "a.safetensors: tensor 'b' begins at byte 0 of the data; expected 2");
}

TEST(SafetensorsTest, WritesAnAlignedHeader) {
  const std::string file = SafetensorsFile("h", Dtype::kBf16, Shape{2, 3}, kTwoData);
  EXPECT_EQ((file.size() - kTwoData.size()) % 8, 0u);
  EXPECT_EQ(file, Length(64) + R"({"h":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}})" +
                      std::string(6, ' ') + kTwoData);
}

TEST(SafetensorsTest, WritesSeveralTensorsOneAfterTheOther) {
  const NamedTensor tensors[] = {{"h", {Dtype::kBf16, {1}, AsBytes("ab")}},
                                 {"df", {Dtype::kFp32, {0, 3}, {}}},
                                 {"de", {Dtype::kFp16, {2, 1}, AsBytes("cdef")}}};
  const std::string file = SafetensorsHeader(tensors) + "abcdef";
  const auto entries = ParseSafetensors("a.safetensors", AsBytes(file));
  ASSERT_TRUE(entries.ok()) << entries.status();
  EXPECT_EQ(entries->size(), 3u);
  EXPECT_EQ(AsText(FindSafetensor("a", AsBytes(file), "h")->bytes), "ab");
  EXPECT_EQ(FindSafetensor("a", AsBytes(file), "df")->shape, (Shape{0, 3}));
  EXPECT_EQ(AsText(FindSafetensor("a", AsBytes(file), "de")->bytes), "cdef");
}

TEST(SafetensorsTest, ReadsWhatItWrites) {
  for (const Dtype dtype : {Dtype::kFp16, Dtype::kBf16, Dtype::kFp32}) {
    for (const Shape& shape : {Shape{}, Shape{0, 4}, Shape{7}, Shape{2, 3, 4}}) {
      const int64_t size = *client::TensorBytes("t", dtype, shape);
      const std::string data = Pattern(static_cast<size_t>(size), 3);
      const std::string file = SafetensorsFile("df", dtype, shape, data);
      const auto tensor = FindSafetensor("a.safetensors", AsBytes(file), "df");
      ASSERT_TRUE(tensor.ok()) << tensor.status();
      EXPECT_EQ(tensor->dtype, dtype);
      EXPECT_EQ(tensor->shape, shape);
      EXPECT_EQ(AsText(tensor->bytes), data);
    }
  }
}

}  // namespace
}  // namespace swiglu::files
