// SPDX-License-Identifier: Apache-2.0
//
// Names of files and tensors, formats, and raw files.
#include "client/files/tensor_format.h"

#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/files/npy.h"
#include "client/files/tensor_file.h"
#include "client/files/tensor_output.h"
#include "gtest/gtest.h"
#include "tests/client/bytes.h"
#include "tests/client/named_tensors.h"
#include "tests/client/temp_folder.h"

namespace swiglu::files {
namespace {

using client::Dtype;
using client::Shape;

// PATH|TENSOR
std::string Parts(absl::string_view text) {
  const TensorName name = SplitTensorName(text);
  return name.path + "|" + name.tensor;
}

TEST(TensorFormatTest, SplitsAtTheFirstExtensionWithAColon) {
  EXPECT_EQ(Parts("a.npy"), "a.npy|");
  EXPECT_EQ(Parts("a.safetensors:e"), "a.safetensors|e");
  EXPECT_EQ(Parts("a.safetensors:b.npy:c"), "a.safetensors|b.npy:c");
  EXPECT_EQ(Parts("a.raw:e"), "a.raw|e");
  EXPECT_EQ(Parts("a.bin:e"), "a.bin|e");
  EXPECT_EQ(Parts("with:colon.safetensors"), "with:colon.safetensors|");
  EXPECT_EQ(Parts("-"), "-|");
  EXPECT_EQ(Parts("-:e.npy:f"), "-|e.npy:f");
  EXPECT_EQ(Parts("-x:e"), "-x:e|");
}

TEST(TensorFormatTest, ExtensionsTellTheFormat) {
  EXPECT_EQ(FormatOf("a.raw").value(), Format::kRaw);
  EXPECT_EQ(FormatOf("a.bin").value(), Format::kRaw);
  EXPECT_EQ(Extension(Format::kRaw), ".raw");
  EXPECT_EQ(Extension(Format::kNpy), ".npy");
  EXPECT_EQ(Extension(Format::kSafetensors), ".safetensors");
}

TEST(TensorFormatTest, OnlyNpyHoldsOneTensor) {
  EXPECT_EQ(CheckFormatHolds(Format::kNpy, Dtype::kFp16, 3).message(),
            "a .npy file holds one tensor, not 3; a .safetensors file holds several");
  EXPECT_TRUE(CheckFormatHolds(Format::kSafetensors, Dtype::kBf16, 3).ok());
  EXPECT_TRUE(CheckFormatHolds(Format::kRaw, Dtype::kBf16, 3).ok());
}

TEST(TensorFormatTest, FirstBytesTellTheFormat) {
  EXPECT_EQ(FormatOfContent(AsBytes(NpyHeader(Dtype::kFp16, {})->substr(0, 9))).value(),
            Format::kNpy);
  const std::string safetensors = SafetensorsFile("x", Dtype::kFp16, {0}, "");
  EXPECT_EQ(FormatOfContent(AsBytes(safetensors.substr(0, 9))).value(), Format::kSafetensors);
  for (const std::string& other : {safetensors.substr(0, 8), std::string(9, '\0'),
                                   std::string("{\"e\":[1,2]}"), std::string(9, '{')}) {
    EXPECT_EQ(FormatOfContent(AsBytes(other)).status().message(),
              "it begins neither as .npy nor as .safetensors");
  }
}

class RawFileTest : public ::testing::Test {
 protected:
  // Looks for a tensor in a raw file with `content`.
  absl::StatusOr<std::string> Find(absl::string_view content, const RawTensors& raw,
                                   size_t index) const {
    const TensorFile file = TensorFile::Open(folder_.Write("a.raw", content)).value();
    const auto tensor = file.FindRaw(raw, index);
    if (!tensor.ok()) return tensor.status();
    EXPECT_EQ(tensor->shape, raw.shape);
    EXPECT_EQ(tensor->dtype, raw.dtype);
    return AsText(tensor->bytes);
  }

  TempFolder folder_;
  UnfinishedFiles unfinished_;
};

TEST_F(RawFileTest, TensorsLieOneAfterTheOther) {
  const RawTensors two{Dtype::kBf16, {2, 1}, 2};
  EXPECT_EQ(Find("abcdefgh", two, 0).value(), "abcd");
  EXPECT_EQ(Find("abcdefgh", two, 1).value(), "efgh");
  EXPECT_EQ(Find("", {Dtype::kFp32, {0, 7}, 2}, 1).value(), "");
  EXPECT_EQ(Find("abcd", {Dtype::kFp32, {}, 1}, 0).value(), "abcd");
}

TEST_F(RawFileTest, SizeMustFit) {
  const std::string path = folder_.Path("a.raw");
  for (const char* content : {"", "abcdefg", "abcdefghi"}) {
    EXPECT_EQ(std::string(Find(content, {Dtype::kFp16, {2, 1}, 2}, 0).status().message()),
              absl::StrCat(path, ": it has ", std::string(content).size(),
                           " bytes; 2 tensors of shape [2,1] of FP16 need 8"));
  }
  EXPECT_EQ(std::string(Find("a", {Dtype::kFp32, {3}, 1}, 0).status().message()),
            path + ": it has 1 bytes; a tensor of shape [3] of FP32 needs 12");
}

TEST_F(RawFileTest, SizeMayOverflow) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(RawBytes({Dtype::kFp16, {kMax / 4}, 2}).value(), kMax / 4 * 4);
  for (const RawTensors& raw :
       {RawTensors{Dtype::kFp16, {kMax, 9}, 1}, RawTensors{Dtype::kFp16, {kMax / 4}, 3}}) {
    EXPECT_EQ(RawBytes(raw).status().message(),
              absl::StrCat("shape is too large: ", client::FormatShape(raw.shape)));
  }
  EXPECT_EQ(RawBytes({Dtype::kFp16, {kMax, 0}, 3}).value(), 0);
}

TEST_F(RawFileTest, WritesTheBytesOfAllTensors) {
  const NamedTensor tensors[] = {{"h", {Dtype::kBf16, {1}, AsBytes("ab")}},
                                 {"df", {Dtype::kBf16, {1}, AsBytes("cd")}}};
  const std::string path = folder_.Path("out.bin");
  auto file = WriteTensors(path, tensors, IfExists::kFail, &unfinished_);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE((*file)->Commit().ok());
  EXPECT_EQ(TempFolder::Read(path), "abcd");
}

TEST_F(RawFileTest, NpyIsNotWrittenWithSeveralTensors) {
  const NamedTensor tensors[2] = {{"h", {Dtype::kFp16, {1}, AsBytes("ab")}},
                                  {"df", {Dtype::kFp16, {1}, AsBytes("cd")}}};
  EXPECT_EQ(WriteTensors(folder_.Path("a.npy"), tensors, IfExists::kFail, &unfinished_)
                .status()
                .message(),
            folder_.Path("a.npy") +
                ": a .npy file holds one tensor, not 2; a .safetensors file holds several");
  EXPECT_EQ(folder_.NumFiles(), 0);
}

}  // namespace
}  // namespace swiglu::files
