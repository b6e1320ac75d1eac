// SPDX-License-Identifier: Apache-2.0
//
// The .npy reader and writer against files as NumPy writes them, and against every way to be wrong.
#include "client/files/npy.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/bytes.h"

namespace swiglu::files {
namespace {

using client::Dtype;
using client::Shape;
using client::TensorView;

// A file of version 1.0 with that header and data; the length is the header's own.
std::string NpyFile(std::string header, const std::string& data) {
  std::string file("\x93NUMPY\x01\x00", 8);
  file.push_back(static_cast<char>(header.size() & 0xFF));
  file.push_back(static_cast<char>(header.size() >> 8));
  return file + header + data;
}

std::string NpyError(const std::string& file) {
  const auto tensor = ParseNpy("a.npy", AsBytes(file));
  EXPECT_FALSE(tensor.ok());
  EXPECT_EQ(tensor.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(tensor.status().message());
}

constexpr char kHeader[] = "{'descr': '<f2', 'fortran_order': False, 'shape': (2, 3), }   \n";
const std::string kData = "abcdefghijkl";

TEST(NpyTest, ReadsWhatNumpyWrites) {
  const std::string file = NpyFile(kHeader, kData);
  const auto tensor = ParseNpy("a.npy", AsBytes(file));
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_EQ(tensor->dtype, Dtype::kFp16);
  EXPECT_EQ(tensor->shape, (Shape{2, 3}));
  EXPECT_EQ(AsText(tensor->bytes), kData);
  EXPECT_EQ(reinterpret_cast<const char*>(tensor->bytes.data()), file.data() + file.size() - 12)
      << "the bytes are not copied";
}

TEST(NpyTest, ReadsVersions2And3) {
  for (const char version : {'\x02', '\x03'}) {
    std::string file("\x93NUMPY", 6);
    file += {version, '\0', static_cast<char>(sizeof(kHeader) - 1), '\0', '\0', '\0'};
    file += kHeader + kData;
    const auto tensor = ParseNpy("a.npy", AsBytes(file));
    ASSERT_TRUE(tensor.ok()) << tensor.status();
    EXPECT_EQ(AsText(tensor->bytes), kData);
  }
}

TEST(NpyTest, ReadsEveryWayToWriteAShape) {
  const std::vector<std::pair<std::string, Shape>> cases = {{"(6,)", {6}},
                                                            {"(6, 1)", {6, 1}},
                                                            {"(2,3)", {2, 3}},
                                                            {"( 2 , 3 , )", {2, 3}},
                                                            {"(1, 6,)", {1, 6}}};
  for (const auto& [text, shape] : cases) {
    const std::string file =
        NpyFile("{\"shape\":" + text + ",'descr':\"<f2\",'fortran_order':False}\n", kData);
    const auto tensor = ParseNpy("a.npy", AsBytes(file));
    ASSERT_TRUE(tensor.ok()) << text << tensor.status();
    EXPECT_EQ(tensor->shape, shape) << text;
  }
}

TEST(NpyTest, ReadsRankZeroAsOneElement) {
  const auto file = NpyFile("{'descr': '<f4', 'fortran_order': False, 'shape': (), }\n", "abcd");
  const auto tensor = ParseNpy("a.npy", AsBytes(file));
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_EQ(tensor->dtype, Dtype::kFp32);
  EXPECT_EQ(tensor->shape, Shape{});
}

TEST(NpyTest, ReadsATensorWithoutElements) {
  const auto file = NpyFile(
      "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 0, 9223372036854775807), }\n", "");
  const auto tensor = ParseNpy("a.npy", AsBytes(file));
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_EQ(tensor->bytes.size(), 0u);
}

TEST(NpyTest, RefusesEveryTruncation) {
  const std::string file = NpyFile(kHeader, kData);
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_FALSE(ParseNpy("a.npy", AsBytes(file.substr(0, size))).ok()) << size;
  }
}

TEST(NpyTest, SaysWhereAFileIsTruncated) {
  const std::string file = NpyFile(kHeader, kData);
  EXPECT_EQ(NpyError(""), "a.npy: not a .npy file: wrong magic");
  EXPECT_EQ(NpyError(file.substr(0, 7)), "a.npy: truncated before its version");
  EXPECT_EQ(NpyError(file.substr(0, 9)), "a.npy: truncated before its header");
  EXPECT_EQ(NpyError(file.substr(0, 20)), "a.npy: truncated in its header: it has 10 of 63 bytes");
  EXPECT_EQ(NpyError(file.substr(0, file.size() - 1)),
            "a.npy: data has 11 bytes; shape [2,3] of FP16 needs 12");
}

TEST(NpyTest, RefusesTrailingBytes) {
  EXPECT_EQ(NpyError(NpyFile(kHeader, kData + "x")),
            "a.npy: data has 13 bytes; shape [2,3] of FP16 needs 12");
}

TEST(NpyTest, RefusesOtherVersions) {
  std::string file = NpyFile(kHeader, kData);
  file[6] = 4;
  EXPECT_EQ(NpyError(file), "a.npy: version 4.0 is not supported; expected 1.0, 2.0 or 3.0");
  file[6] = 1;
  file[7] = 1;
  EXPECT_EQ(NpyError(file), "a.npy: version 1.1 is not supported; expected 1.0, 2.0 or 3.0");
}

TEST(NpyTest, RefusesAHugeHeader) {
  std::string file("\x93NUMPY\x02\x00\xff\xff\xff\xff", 12);
  EXPECT_EQ(NpyError(file), "a.npy: header of 4294967295 bytes; expected at most 1048576");
}

TEST(NpyTest, RefusesFortranOrder) {
  EXPECT_EQ(
      NpyError(NpyFile("{'descr': '<f2', 'fortran_order': True, 'shape': (2, 3), }\n", kData)),
      "a.npy: Fortran order is not supported; expected row-major (C) order");
}

TEST(NpyTest, TakesFortranOrderWhereItIsTheSame) {
  for (const char* shape : {"(6,)", "(1, 6)", "(6, 1)", "(1, 1, 6, 1)", "(1, 1, 1, 1, 1, 6)"}) {
    const std::string file = NpyFile(
        absl::StrCat("{'descr': '<f2', 'fortran_order': True, 'shape': ", shape, "}\n"), kData);
    const auto tensor = ParseNpy("a.npy", AsBytes(file));
    ASSERT_TRUE(tensor.ok()) << shape << tensor.status();
    EXPECT_EQ(AsText(tensor->bytes), kData) << shape;
  }
  for (const char* shape : {"(0, 3, 4)", "(2, 3, 0)"}) {
    const std::string file = NpyFile(
        absl::StrCat("{'descr': '<f2', 'fortran_order': True, 'shape': ", shape, "}\n"), "");
    EXPECT_TRUE(ParseNpy("a.npy", AsBytes(file)).ok()) << shape;
  }
  const std::string one = NpyFile("{'descr': '<f4', 'fortran_order': True, 'shape': ()}\n", "abcd");
  EXPECT_TRUE(ParseNpy("a.npy", AsBytes(one)).ok());
  EXPECT_EQ(
      NpyError(NpyFile("{'descr': '<f2', 'fortran_order': True, 'shape': (1, 2, 3)}\n", kData)),
      "a.npy: Fortran order is not supported; expected row-major (C) order");
}

TEST(NpyTest, SaysThatMlDtypesBf16IsNotNpys) {
  for (const std::string descr : {"<V2", "|V2"}) {
    EXPECT_EQ(
        NpyError(NpyFile("{'descr': '" + descr + "', 'fortran_order': False, 'shape': (2, 3), }\n",
                         kData)),
        "a.npy: type '" + descr +
            "' is how NumPy writes BF16 of ml_dtypes; .npy has no type for BF16; use "
            ".safetensors");
  }
}

TEST(NpyTest, RefusesOtherTypes) {
  const auto with = [](const std::string& descr) {
    return NpyError(
        NpyFile("{'descr': '" + descr + "', 'fortran_order': False, 'shape': (2, 3), }\n", kData));
  };
  EXPECT_EQ(
      with(">f2"),
      "a.npy: big-endian type '>f2' is not supported; .npy takes '<f2' (FP16) and '<f4' (FP32)");
  EXPECT_EQ(with("<f8"),
            "a.npy: type '<f8' is not supported; .npy takes '<f2' (FP16) and '<f4' (FP32)");
  EXPECT_EQ(with("|V4"),
            "a.npy: type '|V4' is not supported; .npy takes '<f2' (FP16) and '<f4' (FP32)");
}

TEST(NpyTest, RefusesNegativeAndOverflowingShapes) {
  const auto with = [](const std::string& shape) {
    return NpyError(
        NpyFile("{'descr': '<f2', 'fortran_order': False, 'shape': " + shape + ", }\n", kData));
  };
  EXPECT_THAT(with("(-2, 3)"), ::testing::StartsWith("a.npy: malformed header"));
  EXPECT_THAT(with("(9223372036854775808,)"), ::testing::StartsWith("a.npy: malformed header"));
  EXPECT_EQ(with("(4611686018427387904, 2)"),
            "a.npy: shape of 'data' is too large: [4611686018427387904,2]");
}

TEST(NpyTest, RefusesMalformedHeaders) {
  const std::vector<std::string> headers = {
      "",
      "\n",
      "{}\n",
      "{'descr': '<f2', 'fortran_order': False, 'shape': (2, 3), }",    // no newline
      "{'descr': '<f2', 'fortran_order': False}\n",                     // no shape
      "{'descr': '<f2', 'fortran_order': False, 'shape': (6)}\n",       // a number
      "{'descr': '<f2', 'fortran_order': False, 'shape': (,)}\n",       //
      "{'descr': '<f2', 'fortran_order': False, 'shape': (2 3)}\n",     // no comma
      "{'descr': '<f2', 'fortran_order': False, 'shape': [2, 3]}\n",    // a list
      "{'descr': '<f2', 'fortran_order': False, 'shape': (2.0, 3)}\n",  // no integer
      "{'descr': '<f2', 'fortran_order': 0, 'shape': (2, 3)}\n",        // no bool
      "{'descr': [('a', '<f2')], 'fortran_order': False, 'shape': (2, 3)}\n",
      "{'descr': '<f2', 'descr': '<f2', 'fortran_order': False, 'shape': (2, 3)}\n",
      "{'descr': '<f2', 'fortran_order': False, 'shape': (2, 3), 'x': 1}\n",
      "{'descr': '<f2', 'fortran_order': False, 'shape': (2, 3)} x\n",
      "{'descr': '<f2' 'fortran_order': False, 'shape': (2, 3)}\n",
      "{'descr: '<f2', 'fortran_order': False, 'shape': (2, 3)}\n",
      "'descr': '<f2', 'fortran_order': False, 'shape': (2, 3)}\n",
      "{'descr': '<f2', 'fortran_order': False, 'shape': (2, 3)\n"};
  for (const std::string& header : headers) {
    EXPECT_THAT(NpyError(NpyFile(header, kData)), ::testing::StartsWith("a.npy: malformed header"))
        << header;
  }
}

TEST(NpyTest, WritesWhatNumpyWould) {
  const auto header = NpyHeader(Dtype::kFp16, Shape{2, 3});
  ASSERT_TRUE(header.ok());
  EXPECT_EQ(header->size() % 64, 0u);
  EXPECT_EQ(*header, std::string("\x93NUMPY\x01\x00\x76\x00", 10) +
                         "{'descr': '<f2', 'fortran_order': False, 'shape': (2, 3), }" +
                         std::string(58, ' ') + "\n");
}

TEST(NpyTest, ReadsWhatItWrites) {
  for (const Shape& shape : {Shape{}, Shape{0}, Shape{5}, Shape{2, 3, 4}, Shape(40'000, 1)}) {
    const auto header = NpyHeader(Dtype::kFp32, shape);
    ASSERT_TRUE(header.ok());
    const int64_t size = *client::TensorBytes("t", Dtype::kFp32, shape);
    const std::string file = *header + Pattern(static_cast<size_t>(size), 1);
    const auto tensor = ParseNpy("a.npy", AsBytes(file));
    ASSERT_TRUE(tensor.ok()) << tensor.status();
    EXPECT_EQ(tensor->shape, shape);
    EXPECT_EQ(AsText(tensor->bytes), Pattern(static_cast<size_t>(size), 1));
  }
}

TEST(NpyTest, CannotWriteBf16) {
  EXPECT_EQ(NpyHeader(Dtype::kBf16, Shape{1}).status().message(),
            ".npy has no type for BF16; use .safetensors");
}

}  // namespace
}  // namespace swiglu::files
