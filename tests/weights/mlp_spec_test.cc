// SPDX-License-Identifier: Apache-2.0
//
// The texts in which users ask for MLPs: good ones, and the sentence for each wrong one.
#include "server/weights/mlp_spec.h"

#include <string>

#include "gtest/gtest.h"

namespace swiglu::server {
namespace {

std::string SpecError(const std::string& text) {
  const auto spec = ParseMlpSpec(text);
  EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(spec.status().message());
}

std::string LayersError(const std::string& text) {
  const auto layers = ParseMlpLayers(text);
  EXPECT_EQ(layers.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(layers.status().message());
}

TEST(MlpSpecTest, ReadsANameAndAPath) {
  const auto spec = ParseMlpSpec("llama_3=/models/a=b");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->name, "llama_3");
  EXPECT_EQ(spec->path, "/models/a=b");
  EXPECT_FALSE(spec->layers.has_value());
}

TEST(MlpSpecTest, TakesTheLongestName) {
  EXPECT_TRUE(ParseMlpSpec(std::string(64, 'a') + "=p").ok());
  EXPECT_EQ(SpecError(std::string(65, 'a') + "=p"),
            "'" + std::string(65, 'a') +
                "=p': want a name of 1 to 64 characters a-z, 0-9 and _ before the '='");
}

TEST(MlpSpecTest, RefusesWhatHasNoNameOrPath) {
  EXPECT_EQ(SpecError("models"), "'models': want NAME=PATH");
  EXPECT_EQ(SpecError(""), "'': want NAME=PATH");
  EXPECT_EQ(SpecError("m="), "'m=': want a path after the '='");
  for (const std::string name : {"", "M", "a b", "a-b", "a.b", "\xc3\xa9"}) {
    EXPECT_EQ(SpecError(name + "=p"),
              "'" + name + "=p': want a name of 1 to 64 characters a-z, 0-9 and _ before the '='");
  }
}

TEST(MlpSpecTest, ShowsNoControlCharacters) {
  EXPECT_EQ(SpecError("a\nb"), "'a\\nb': want NAME=PATH");
}

TEST(MlpSpecTest, RefusesANameThatAModelOfAnotherMlpHas) {
  for (const std::string name : {"a_0_forward", "a_12_backward", "a_99999_forward"}) {
    const std::string error = "the MLP '" + name +
                              "' would have the name of a model of the MLP 'a'; give one of them "
                              "another name";
    const MlpSpec a = {"a", "p", {}}, b = {"b", "p", {}}, taken = {name, "p", {}};
    EXPECT_EQ(CheckMlpNames({b, a, taken}), absl::InvalidArgumentError(error));
    EXPECT_EQ(CheckMlpNames({taken, a, b}), absl::InvalidArgumentError(error));
    EXPECT_TRUE(CheckMlpNames({taken, b}).ok());
  }
}

TEST(MlpSpecTest, TakesNamesThatNoModelHas) {
  for (const std::string name : {"a_0", "a_forward", "a_00_forward", "a_01_forward", "a__forward",
                                 "a_0_forward_0", "a_0_sideways", "a0_forward", "aa_0_forward"}) {
    EXPECT_TRUE(CheckMlpNames({{"a", "p", {}}, {name, "p", {}}}).ok()) << name;
  }
  EXPECT_TRUE(CheckMlpNames({}).ok());
}

TEST(MlpSpecTest, ReadsARangeOfLayers) {
  const auto layers = ParseMlpLayers("m=0:100000");
  ASSERT_TRUE(layers.ok()) << layers.status();
  EXPECT_EQ(layers->name, "m");
  EXPECT_EQ(layers->layers.begin, 0);
  EXPECT_EQ(layers->layers.end, 100'000);
}

TEST(MlpSpecTest, EndIsNotInTheRange) {
  const auto layers = ParseMlpLayers("m=2:4");
  ASSERT_TRUE(layers.ok()) << layers.status();
  EXPECT_FALSE(layers->layers.Holds(1));
  EXPECT_TRUE(layers->layers.Holds(2));
  EXPECT_TRUE(layers->layers.Holds(3));
  EXPECT_FALSE(layers->layers.Holds(4));
}

TEST(MlpSpecTest, RefusesWhatIsNoRange) {
  EXPECT_EQ(LayersError("2:4"), "'2:4': want NAME=a:b");
  EXPECT_EQ(LayersError("M=2:4"),
            "'M=2:4': want a name of 1 to 64 characters a-z, 0-9 and _ before the '='");
  for (const std::string range : {"", "3", ":", "2:", ":4", "4:2", "2:2", "-1:2", "+1:2", " 1:2",
                                  "1:2:3", "a:b", "0x1:2", "0:100001", "0:99999999999"}) {
    EXPECT_EQ(LayersError("m=" + range),
              "'m=" + range + "': want a:b after the '=', with 0 <= a < b <= 100000");
  }
}

}  // namespace
}  // namespace swiglu::server
