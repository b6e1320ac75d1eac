// SPDX-License-Identifier: Apache-2.0
//
// The index of a model in several files: good ones, and the sentence for each malformed one.
#include "server/formats/safetensors_index.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace swiglu::server {
namespace {

std::string IndexError(const std::string& text) {
  const auto tensors = ParseSafetensorsIndex("i.json", text);
  EXPECT_EQ(tensors.status().code(), absl::StatusCode::kInvalidArgument) << text.substr(0, 200);
  return std::string(tensors.status().message());
}

TEST(SafetensorsIndexTest, GivesTheFileOfEachTensorInTheOrderOfNames) {
  const auto tensors = ParseSafetensorsIndex(
      "i.json",
      R"( {"metadata":{"weight_map":{"x":1},"a":[{"b":null}]},"weight_map":{"b":"2.safetensors",)"
      R"("a":"1.safetensors","":"..."},"more":["weight_map",1.5,true,-1]} )");
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 3u);
  EXPECT_EQ((*tensors)[0].name, "");
  EXPECT_EQ((*tensors)[0].file, "...");
  EXPECT_EQ((*tensors)[1].name, "a");
  EXPECT_EQ((*tensors)[1].file, "1.safetensors");
  EXPECT_EQ((*tensors)[2].name, "b");
  EXPECT_EQ((*tensors)[2].file, "2.safetensors");
}

TEST(SafetensorsIndexTest, TakesAnEmptyMap) {
  const auto tensors = ParseSafetensorsIndex("i.json", R"({"weight_map":{}})");
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_TRUE(tensors->empty());
}

TEST(SafetensorsIndexTest, RefusesWhatIsNoJson) {
  for (const std::string text : {"", "{", "{}x", "{\"weight_map\":{\"\xff\":\"a\"}}",
                                 R"({"weight_map":{"a":"b"})", R"({"weight_map":{"a":}})"}) {
    EXPECT_EQ(IndexError(text), "i.json: malformed index: no valid JSON") << text;
  }
}

TEST(SafetensorsIndexTest, RefusesWhatIsNested) {
  const auto with_depth = [](size_t depth) {
    return R"({"weight_map":{},"x":)" + std::string(depth - 1, '[') + std::string(depth - 1, ']') +
           "}";
  };
  EXPECT_TRUE(ParseSafetensorsIndex("i.json", with_depth(127)).ok());
  EXPECT_EQ(IndexError(with_depth(128)), "i.json: malformed index: it is nested too deeply");
  EXPECT_EQ(IndexError(std::string(1'000'000, '[')),
            "i.json: malformed index: it is nested too deeply");
}

TEST(SafetensorsIndexTest, RefusesWhatHasNoMap) {
  for (const char* text : {"{}", "[]", "1", "\"weight_map\"", "null", R"([{"weight_map":{}}])",
                           R"({"metadata":{"weight_map":{"a":"b"}}})"}) {
    EXPECT_EQ(IndexError(text), "i.json: malformed index: it has no weight_map") << text;
  }
}

TEST(SafetensorsIndexTest, RefusesMapsThatAreNoneOfStrings) {
  for (const char* map : {"1", "null", "\"a\"", "[]", "[\"a\"]", R"([{"a":"b"}])", R"({"a":1})",
                          R"({"a":null})", R"({"a":["b"]})", R"({"a":{"b":"c"}})", R"({"a":-1})",
                          R"({"a":true})", R"({"a":1.5})", R"({"a":"b","c":1})"}) {
    EXPECT_EQ(IndexError(absl::StrCat(R"({"weight_map":)", map, "}")),
              "i.json: malformed index: weight_map is not a map of strings")
        << map;
  }
}

TEST(SafetensorsIndexTest, RefusesDuplicates) {
  EXPECT_EQ(IndexError(R"({"weight_map":{"a":"1","b":"2","a":"1"}})"),
            "i.json: malformed index: 'a' is there twice");
  EXPECT_EQ(IndexError(R"({"weight_map":{"a":"1"},"weight_map":{"b":"2"}})"),
            "i.json: malformed index: 'weight_map' is there twice");
}

TEST(SafetensorsIndexTest, RefusesFilesOutsideTheFolder) {
  for (const std::string file : {"", ".", "..", "../a", "/a", "a/b", "a/"}) {
    EXPECT_EQ(IndexError(absl::StrCat(R"({"weight_map":{"t":")", file, "\"}}")),
              "i.json: malformed index: tensor 't' is in '" + file +
                  "'; expected the name of a file in the same folder");
  }
  EXPECT_EQ(IndexError(R"({"weight_map":{"t":"a\u0000z"}})"),
            "i.json: malformed index: tensor 't' is in 'a\\x00z'; expected the name of a file in "
            "the same folder");
}

// The list is not closed, which shows whether the reader reaches its end.
TEST(SafetensorsIndexTest, RefusesTooManyTensors) {
  const auto with = [](int num_tensors) {
    std::string text = R"({"weight_map":{)";
    for (int k = 0; k < num_tensors; ++k) text += R"("":"",)";
    return text;
  };
  EXPECT_EQ(IndexError(with(1'000'000)), "i.json: malformed index: no valid JSON");
  EXPECT_EQ(IndexError(with(1'000'001)), "i.json: malformed index: more than 1000000 tensors");
}

TEST(SafetensorsIndexTest, RefusesTooManyBytes) {
  std::string text;
  text.resize(100'000'001, ' ');
  EXPECT_EQ(IndexError(text), "i.json: index of 100000001 bytes; expected at most 100000000");
}

}  // namespace
}  // namespace swiglu::server
