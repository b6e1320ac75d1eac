// SPDX-License-Identifier: Apache-2.0
//
// Which tensors make up layers, by their names: the forms that count, and the sentence for each
// wrong list of names.
#include "server/weights/layer_plan.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace swiglu::server {
namespace {

using NameList = std::vector<std::string>;

absl::StatusOr<std::vector<PlannedLayer>> Plan(const NameList& names,
                                               std::optional<MlpLayerRange> wanted = std::nullopt) {
  return PlanLayers("m.safetensors", std::vector<absl::string_view>(names.begin(), names.end()),
                    wanted);
}

std::string PlanError(const NameList& names, std::optional<MlpLayerRange> wanted = std::nullopt) {
  const auto planned = Plan(names, wanted);
  EXPECT_EQ(planned.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(planned.status().message());
}

// The names of the tensors of one MLP, and of `more`.
NameList Mlp(const std::string& stem, const NameList& more = {}) {
  NameList names = {stem + "gate_proj.weight", stem + "up_proj.weight", stem + "down_proj.weight"};
  names.insert(names.end(), more.begin(), more.end());
  return names;
}

NameList Layers(const std::vector<int>& numbers) {
  NameList names;
  for (const int number : numbers) {
    const NameList layer = Mlp(absl::StrCat("model.layers.", number, ".mlp."));
    names.insert(names.end(), layer.begin(), layer.end());
  }
  return names;
}

std::vector<int> Numbers(const std::vector<PlannedLayer>& layers) {
  std::vector<int> numbers;
  numbers.reserve(layers.size());
  for (const PlannedLayer& layer : layers) numbers.push_back(layer.number);
  return numbers;
}

TEST(LayerPlanTest, FindsSeparateTensorsBehindEachPrefix) {
  for (const std::string stem :
       {"model.layers.7.mlp.", "layers.7.mlp.", "language_model.model.layers.7.mlp.",
        "model.language_model.layers.7.mlp.", "base_model.layers.7.mlp."}) {
    const auto planned = Plan(Mlp(stem, {"model.embed_tokens.weight", "lm_head.weight"}));
    ASSERT_TRUE(planned.ok()) << planned.status();
    ASSERT_EQ(planned->size(), 1u);
    EXPECT_EQ((*planned)[0].number, 7);
    EXPECT_FALSE((*planned)[0].is_fused);
    EXPECT_EQ((*planned)[0].gate, stem + "gate_proj.weight");
    EXPECT_EQ((*planned)[0].up, stem + "up_proj.weight");
    EXPECT_EQ((*planned)[0].down, stem + "down_proj.weight");
  }
}

TEST(LayerPlanTest, FindsAFusedTensor) {
  const auto planned = Plan(
      {"model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.gate_up_proj.weight", "norm"});
  ASSERT_TRUE(planned.ok()) << planned.status();
  ASSERT_EQ(planned->size(), 1u);
  EXPECT_TRUE((*planned)[0].is_fused);
  EXPECT_EQ((*planned)[0].gate, "model.layers.0.mlp.gate_up_proj.weight");
  EXPECT_EQ((*planned)[0].up, "model.layers.0.mlp.gate_up_proj.weight");
  EXPECT_EQ((*planned)[0].down, "model.layers.0.mlp.down_proj.weight");
}

TEST(LayerPlanTest, TakesBareTensorsForLayer0) {
  const auto separate = Plan(Mlp(""));
  ASSERT_TRUE(separate.ok()) << separate.status();
  EXPECT_EQ((*separate)[0].number, 0);
  EXPECT_EQ((*separate)[0].gate, "gate_proj.weight");
  const auto fused = Plan({"gate_up_proj.weight", "down_proj.weight"});
  ASSERT_TRUE(fused.ok()) << fused.status();
  EXPECT_TRUE((*fused)[0].is_fused);
  EXPECT_EQ((*fused)[0].down, "down_proj.weight");
}

TEST(LayerPlanTest, SortsLayersByNumber) {
  const auto planned = Plan(Layers({10, 9, 100, 2, 99'999}));
  ASSERT_TRUE(planned.ok()) << planned.status();
  EXPECT_EQ(Numbers(*planned), (std::vector<int>{2, 9, 10, 100, 99'999}));
}

TEST(LayerPlanTest, KeepsToTheWantedLayers) {
  NameList names = Layers({0, 1, 2, 3});
  names.push_back("model.layers.0.mlp.gate_proj.bias");
  names.push_back("draft.model.layers.3.mlp.gate_proj.weight");
  const auto planned = Plan(names, MlpLayerRange{1, 3});
  ASSERT_TRUE(planned.ok()) << planned.status();
  EXPECT_EQ(Numbers(*planned), (std::vector<int>{1, 2}));
}

TEST(LayerPlanTest, RefusesWantedLayersThatAreNotThere) {
  EXPECT_EQ(PlanError(Layers({0, 1, 2, 3, 5, 7, 8}), MlpLayerRange{3, 6}),
            "m.safetensors: layer 4 has no MLP; those that have one are 0 to 3, 5, 7 to 8");
  EXPECT_EQ(PlanError(Layers({0, 2, 4, 6, 8, 10, 12, 14, 16}), MlpLayerRange{20, 21}),
            "m.safetensors: layer 20 has no MLP; those that have one are 0, 2, 4, 6, 8, 10, 12, "
            "14, ...");
}

TEST(LayerPlanTest, RefusesNamesWithoutAnMlp) {
  constexpr char kNone[] =
      "m.safetensors: holds no MLP; expected tensors such as "
      "model.layers.0.mlp.gate_proj.weight or gate_proj.weight";
  EXPECT_EQ(PlanError({}), kNone);
  EXPECT_EQ(PlanError({"e", "g"}, MlpLayerRange{0, 1}), kNone);
  // NameList that only look similar.
  for (const std::string stem :
       {"model.layers.mlp.", "model.layers..mlp.", "model.layers.x.mlp.", "model.layers.-1.mlp.",
        "mylayers.0.mlp.", "encoder.layers.0.mlp.", "blocks.0.mlp.", "0.mlp.", "mlp.",
        "model.layers.0.self_attn.", "model.layers.0."}) {
    EXPECT_EQ(PlanError(Mlp(stem)), kNone) << stem;
  }
  // An MLP without a gate of this kind.
  EXPECT_EQ(PlanError({"model.layers.0.mlp.fc1.weight", "model.layers.0.mlp.fc2.weight"}), kNone);
}

TEST(LayerPlanTest, RefusesExperts) {
  const NameList experts = {"model.layers.3.mlp.gate.weight",
                            "model.layers.3.mlp.experts.0.gate_proj.weight",
                            "model.layers.3.mlp.shared_experts.gate_proj.weight"};
  EXPECT_EQ(PlanError(experts),
            "m.safetensors: holds no MLP but those of experts, such as "
            "'model.layers.3.mlp.experts.0.gate_proj.weight'; expected layers with one MLP each");
  EXPECT_EQ(PlanError({"model.layers.0.mlp.shared_expert.up_proj.weight"}),
            "m.safetensors: holds no MLP but those of experts, such as "
            "'model.layers.0.mlp.shared_expert.up_proj.weight'; expected layers with one MLP each");
  NameList mixed = Layers({0, 1, 2});
  mixed.insert(mixed.end(), experts.begin(), experts.end());
  const auto planned = Plan(mixed);
  ASSERT_TRUE(planned.ok()) << planned.status();
  EXPECT_EQ(Numbers(*planned), (std::vector<int>{0, 1, 2}));
  constexpr char kHasExperts[] =
      "m.safetensors: layer 3 has experts, such as "
      "'model.layers.3.mlp.experts.0.gate_proj.weight'; expected layers with one MLP each";
  EXPECT_EQ(PlanError(mixed, MlpLayerRange{2, 4}), kHasExperts);
  // A layer with experts beside an MLP computes the sum of both.
  EXPECT_EQ(PlanError(Mlp("model.layers.3.mlp.", experts)), kHasExperts);
}

TEST(LayerPlanTest, RefusesTensorsThatAnMlpMustNotHave) {
  constexpr char kExpected[] =
      "; expected only gate_proj.weight, up_proj.weight and down_proj.weight, or "
      "gate_up_proj.weight and down_proj.weight";
  for (const std::string stem : {"model.layers.0.mlp.", ""}) {
    for (const std::string part : {"gate_proj", "up_proj", "gate_up_proj", "down_proj"}) {
      EXPECT_EQ(PlanError(Mlp(stem, {stem + part + ".bias"})),
                absl::StrCat("m.safetensors: tensor '", stem, part, ".bias' is a bias", kExpected));
      EXPECT_EQ(PlanError(Mlp(stem, {stem + part + ".weight_scale"})),
                absl::StrCat("m.safetensors: tensor '", stem, part,
                             ".weight_scale' is no part of a SwiGLU MLP", kExpected));
    }
  }
  EXPECT_EQ(PlanError(Mlp("layers.0.mlp.", {"layers.0.mlp.ffn_norm.weight"})),
            absl::StrCat("m.safetensors: tensor 'layers.0.mlp.ffn_norm.weight' is no part of a "
                         "SwiGLU MLP",
                         kExpected));
}

TEST(LayerPlanTest, SaysWhichTensorIsMissing) {
  const std::string stem = "model.layers.4.mlp.";
  const auto missing = [&](const NameList& parts, const std::string& first,
                           const std::string& absent) {
    NameList names;
    for (const std::string& part : parts) names.push_back(stem + part + ".weight");
    EXPECT_EQ(PlanError(names), absl::StrCat("m.safetensors: layer 4 has '", stem, first,
                                             ".weight' but no '", stem, absent, ".weight'"));
  };
  missing({"up_proj", "down_proj"}, "up_proj", "gate_proj");
  missing({"gate_proj", "down_proj"}, "gate_proj", "up_proj");
  missing({"gate_proj", "up_proj"}, "gate_proj", "down_proj");
  missing({"down_proj"}, "down_proj", "gate_proj");
  missing({"gate_up_proj"}, "gate_up_proj", "down_proj");
  EXPECT_EQ(PlanError({"gate_proj.weight", "up_proj.weight"}),
            "m.safetensors: layer 0 has 'gate_proj.weight' but no 'down_proj.weight'");
}

TEST(LayerPlanTest, RefusesFusedBesideSeparate) {
  EXPECT_EQ(PlanError(Mlp("layers.0.mlp.", {"layers.0.mlp.gate_up_proj.weight"})),
            "m.safetensors: layer 0 has both 'layers.0.mlp.gate_up_proj.weight' and "
            "'layers.0.mlp.gate_proj.weight'; expected one or the other");
  EXPECT_EQ(PlanError({"gate_up_proj.weight", "up_proj.weight", "down_proj.weight"}),
            "m.safetensors: layer 0 has both 'gate_up_proj.weight' and 'up_proj.weight'; expected "
            "one or the other");
}

TEST(LayerPlanTest, RefusesTwoPrefixesOfOneLayer) {
  EXPECT_EQ(PlanError(Mlp("model.layers.0.mlp.", {"draft.model.layers.0.mlp.up_proj.weight"})),
            "m.safetensors: layer 0 is there twice, as "
            "'draft.model.layers.0.mlp.up_proj.weight' and as "
            "'model.layers.0.mlp.gate_proj.weight'; expected one MLP for each layer");
  EXPECT_EQ(PlanError(Mlp("model.layers.0.mlp.", Mlp(""))),
            "m.safetensors: layer 0 is there twice, as 'gate_proj.weight' and as "
            "'model.layers.0.mlp.gate_proj.weight'; expected one MLP for each layer");
  // What has no projection is no second MLP, and different numbers are no conflict.
  EXPECT_TRUE(Plan(Mlp("model.layers.0.mlp.", {"vision_model.layers.0.mlp.fc1.weight"})).ok());
  EXPECT_TRUE(Plan(Mlp("model.layers.0.mlp.", Mlp("draft.model.layers.1.mlp."))).ok());
}

TEST(LayerPlanTest, RefusesNumbersThatAreNoneOfALayer) {
  for (const std::string number : {"00", "01", "100000", "99999999999999999999"}) {
    EXPECT_EQ(PlanError(Mlp("model.layers." + number + ".mlp.")),
              "m.safetensors: tensor 'model.layers." + number +
                  ".mlp.gate_proj.weight' has no number of a layer; expected 0 to 99999 without "
                  "leading zeros");
  }
}

TEST(LayerPlanTest, ShowsNamesEscaped) {
  EXPECT_EQ(PlanError({"a\n\xff.model.layers.0.mlp.down_proj.weight"}),
            "m.safetensors: layer 0 has 'a\\n\\xff.model.layers.0.mlp.down_proj.weight' but no "
            "'a\\n\\xff.model.layers.0.mlp.gate_proj.weight'");
}

}  // namespace
}  // namespace swiglu::server
