// SPDX-License-Identifier: Apache-2.0
//
// Sizes and shapes, and what the library refuses before it sends anything.
#include "swiglu/tensor.h"

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "swiglu/client.h"
#include "swiglu/typed_view.h"
#include "tests/client/bytes.h"

namespace swiglu::client {
namespace {

// Elements as a library has them.
struct LibraryHalf {
  uint16_t bits;
};
struct LibraryBfloat {
  LibraryBfloat() : bits(0) {}
  explicit LibraryBfloat(float) : bits(1) {}
  uint16_t bits;
};

template <typename Range>
concept CanBeViewed = requires(Range&& elements) {
  View(std::forward<Range>(elements));
  View(std::forward<Range>(elements), Shape{});
};
template <typename Range>
concept CanBeWritten = requires(Range&& elements) {
  MutableBytes(std::forward<Range>(elements));
};
template <typename T>
concept CanBeRead = requires(T&& tensor) {
  Elements<float>(std::forward<T>(tensor));
};

}  // namespace

template <>
struct DtypeOf<LibraryHalf> : Fp16Elements {};
template <>
struct DtypeOf<LibraryBfloat> : Bf16Elements {};

namespace {

TEST(TensorTest, BytesFollowFromShapeAndDtype) {
  EXPECT_EQ(TensorBytes("e", Dtype::kFp16, Shape{3, 4}).value(), 24);
  EXPECT_EQ(TensorBytes("e", Dtype::kFp32, Shape{}).value(), 4);
  EXPECT_EQ(TensorBytes("e", Dtype::kBf16, Shape{0, INT64_MAX, INT64_MAX}).value(), 0);
  EXPECT_EQ(TensorBytes("e", Dtype::kBf16, Shape{INT64_MAX / 2}).value(), INT64_MAX - 1);
}

TEST(TensorTest, RefusesShapesThatNoMemoryHolds) {
  EXPECT_EQ(TensorBytes("e", Dtype::kFp16, Shape{-3, 4}).status().message(),
            "shape of 'e' has a negative dimension: [-3,4]");
  EXPECT_EQ(TensorBytes("e", Dtype::kFp16, Shape{0, -1}).status().message(),
            "shape of 'e' has a negative dimension: [0,-1]");
  EXPECT_EQ(TensorBytes("e", Dtype::kFp16, Shape{INT64_MAX}).status().message(),
            "shape of 'e' is too large: [9223372036854775807]");
}

TEST(TensorTest, RefusesADtypeThatIsNone) {
  EXPECT_EQ(TensorBytes("e", static_cast<Dtype>(7), Shape{3}).status(),
            absl::InvalidArgumentError("dtype of 'e' is 7; it is FP16, BF16 or FP32"));
}

TEST(TensorTest, MovesEverythingOrNothing) {
  Tensor tensor(Dtype::kFp16, {3, 4}, 24);
  const std::byte* const bytes = tensor.bytes().data();
  Tensor moved = std::move(tensor);
  EXPECT_EQ(moved.dtype(), Dtype::kFp16);
  EXPECT_EQ(moved.shape(), (Shape{3, 4}));
  EXPECT_EQ(moved.bytes().data(), bytes);
  EXPECT_EQ(moved.bytes().size(), 24u);
  const auto expect_default = [](const Tensor& left) {
    EXPECT_EQ(left.dtype(), Dtype::kFp32);
    EXPECT_EQ(left.shape(), Shape{0});
    EXPECT_EQ(left.bytes().size(), 0u);
    EXPECT_EQ(left.view().bytes.size(), 0u);
  };
  expect_default(tensor);

  Tensor assigned(Dtype::kBf16, {5}, 10);
  assigned = std::move(moved);
  EXPECT_EQ(assigned.shape(), (Shape{3, 4}));
  EXPECT_EQ(assigned.bytes().data(), bytes);
  expect_default(moved);

  Tensor& same = assigned;
  assigned = std::move(same);
  EXPECT_EQ(assigned.shape(), (Shape{3, 4}));
  EXPECT_EQ(assigned.bytes().data(), bytes);
}

TEST(TensorTest, ShowsLongShapesInPart) {
  EXPECT_EQ(FormatShape(Shape{}), "[]");
  EXPECT_EQ(FormatShape(Shape(16, 1)), "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]");
  EXPECT_EQ(FormatShape(Shape(17, 1)), "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,... (17 dims)]");
  EXPECT_EQ(FormatShape(Shape(20, 1)), "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,... (20 dims)]");
}

TEST(TensorTest, DatatypeNamesGoBothWays) {
  for (const Dtype dtype : {Dtype::kFp16, Dtype::kBf16, Dtype::kFp32}) {
    EXPECT_EQ(ParseDatatype(DatatypeName(dtype)).value(), dtype);
  }
  EXPECT_FALSE(ParseDatatype("FP64").has_value());
}

TEST(TypedViewTest, BorrowsElements) {
  const std::vector<float> values(6);
  const TensorView view = View(values, {2, 3});
  EXPECT_EQ(view.dtype, Dtype::kFp32);
  EXPECT_EQ(view.shape, (Shape{2, 3}));
  EXPECT_EQ(view.bytes.data(), reinterpret_cast<const std::byte*>(values.data()));
  EXPECT_EQ(view.bytes.size(), 24u);
}

TEST(TypedViewTest, KnowsTypesOfLibraries) {
  const std::array<LibraryHalf, 5> halves{};
  EXPECT_EQ(View(halves).dtype, Dtype::kFp16);
  EXPECT_EQ(View(halves).shape, Shape{5});
  EXPECT_EQ(View(halves).bytes.size(), 10u);
  std::vector<LibraryBfloat> bfloats(7);
  EXPECT_EQ(View(bfloats).dtype, Dtype::kBf16);
  EXPECT_EQ(View(bfloats).bytes.size(), 14u);
}

TEST(TypedViewTest, LetsACallWriteElements) {
  std::vector<LibraryBfloat> bfloats(7);
  const absl::Span<std::byte> bytes = MutableBytes(absl::MakeSpan(bfloats).subspan(2));
  EXPECT_EQ(bytes.data(), reinterpret_cast<std::byte*>(&bfloats[2]));
  EXPECT_EQ(bytes.size(), 10u);
}

TEST(TypedViewTest, TakesNoTemporaryVectorAndWritesNoConstants) {
  EXPECT_TRUE(CanBeViewed<const std::vector<float>&>);
  EXPECT_TRUE(CanBeViewed<std::span<const float>>);
  EXPECT_TRUE(CanBeViewed<absl::Span<const float>>);
  EXPECT_FALSE(CanBeViewed<std::vector<float>>);
  EXPECT_TRUE(CanBeWritten<std::vector<float>&>);
  EXPECT_FALSE(CanBeWritten<std::vector<float>>);
  EXPECT_FALSE(CanBeWritten<const std::vector<float>&>);
}

TEST(TypedViewTest, ATensorHasElementsOfItsDtype) {
  Tensor tensor(Dtype::kFp32, {2, 3}, 24);
  const absl::Span<float> written = MutableElements<float>(tensor).value();
  ASSERT_EQ(written.size(), 6u);
  written[5] = 1.5f;
  const Tensor& result = tensor;
  const absl::Span<const float> read = Elements<float>(result).value();
  EXPECT_EQ(reinterpret_cast<const std::byte*>(read.data()), result.bytes().data());
  EXPECT_EQ(read.size(), 6u);
  EXPECT_EQ(read[5], 1.5f);
}

TEST(TypedViewTest, ATemporaryTensorGivesNoElements) {
  EXPECT_TRUE(CanBeRead<Tensor&>);
  EXPECT_TRUE(CanBeRead<const Tensor&>);
  EXPECT_FALSE(CanBeRead<Tensor>);
}

TEST(TypedViewTest, ATensorHasNoElementsOfAnotherDtype) {
  Tensor tensor(Dtype::kFp16, {4}, 8);
  const absl::Status error = absl::InvalidArgumentError("the tensor's elements are FP16, not BF16");
  EXPECT_EQ(Elements<LibraryBfloat>(tensor).status(), error);
  EXPECT_EQ(MutableElements<LibraryBfloat>(tensor).status(), error);
  const Tensor empty;
  EXPECT_EQ(Elements<float>(empty).value().size(), 0u);
}

class CheckTest : public ::testing::Test {
 protected:
  const std::string bytes_ = std::string(24, 'x');
  TensorView e_{Dtype::kFp16, {3, 4}, AsBytes(bytes_)};
  TensorView other_ = e_;
};

TEST_F(CheckTest, PassesEqualTensors) {
  EXPECT_TRUE(CheckForward(e_, other_).ok());
  EXPECT_TRUE(CheckBackward(other_, e_, other_).ok());
}

TEST_F(CheckTest, RefusesMixedDtypes) {
  other_.dtype = Dtype::kFp32;
  const absl::Status status = CheckForward(e_, other_);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "input 'g' is FP32; 'swiglu_forward_fp16' takes FP16");
  EXPECT_EQ(CheckBackward(other_, e_, e_).message(),
            "input 'DW' is FP32; 'swiglu_backward_fp16' takes FP16");
}

TEST_F(CheckTest, RefusesADtypeThatIsNone) {
  other_.dtype = static_cast<Dtype>(7);
  const auto refusal = [](const char* name) {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype of '", name, "' is 7; it is FP16, BF16 or FP32"));
  };
  EXPECT_EQ(CheckForward(other_, other_), refusal("e"));
  EXPECT_EQ(CheckForward(e_, other_), refusal("g"));
  EXPECT_EQ(CheckBackward(other_, e_, e_), refusal("DW"));
}

TEST_F(CheckTest, RefusesMixedShapes) {
  other_.shape = {4, 3};
  EXPECT_EQ(CheckForward(e_, other_).message(), "shape of 'g' is [4,3]; 'e' has [3,4]");
  EXPECT_EQ(CheckBackward(other_, e_, e_).message(), "shape of 'DW' is [4,3]; 'e' has [3,4]");
}

TEST_F(CheckTest, RefusesBytesThatAreNotThoseOfTheShape) {
  other_.bytes.remove_suffix(1);
  EXPECT_EQ(CheckForward(e_, other_).message(),
            "input 'g' has 23 bytes; shape [3,4] of FP16 needs 24");
  e_.shape = other_.shape = {4, 8};
  EXPECT_EQ(CheckForward(e_, e_).message(), "input 'e' has 24 bytes; shape [4,8] of FP16 needs 64");
}

}  // namespace
}  // namespace swiglu::client
