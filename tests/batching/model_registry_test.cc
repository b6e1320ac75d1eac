// SPDX-License-Identifier: Apache-2.0
//
// Which models a registry has, in which order, and how they are found.
#include "server/core/model_registry.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "tests/batching/mlp_models.h"

namespace swiglu::server {
namespace {

TEST(ModelRegistryTest, HasTheSixModelsAlways) {
  const ModelRegistry models;
  ASSERT_EQ(models.models().size(), 6u);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(models.models()[i], &Models()[i]);
}

TEST(ModelRegistryTest, FindsEachModelByItsNameAlone) {
  const ModelRegistry models(MlpModels("tiny", 2, 576));
  for (const Model* model : models.models()) EXPECT_EQ(models.Find(model->name), model);
  for (const char* name : {"", "mlp_tiny", "mlp_tiny_2_forward", "swiglu_forward_fp16 "}) {
    EXPECT_EQ(models.Find(name), nullptr) << name;
  }
}

TEST(ModelRegistryTest, PutsOtherModelsBehindTheSix) {
  const ModelRegistry models(MlpModels("tiny", 2, 576));
  ASSERT_EQ(models.models().size(), 10u);
  EXPECT_EQ(models.models()[5]->name, "swiglu_backward_fp32");
  EXPECT_EQ(models.models()[6]->name, "mlp_tiny_0_forward");
  EXPECT_EQ(models.models()[9]->name, "mlp_tiny_1_backward");
}

TEST(ModelRegistryTest, NumbersHundredsOfModels) {
  std::vector<Model> others = MlpModels("small", 80, 576);
  for (const Model& model : MlpModels("large", 80, 14336)) others.push_back(model);
  const ModelRegistry models(std::move(others));
  std::set<const Model*> found;
  for (size_t i = 0; i < models.models().size(); ++i) {
    EXPECT_EQ(models.models()[i]->index, static_cast<int>(i));
    found.insert(models.Find(models.models()[i]->name));
  }
  EXPECT_EQ(found.size(), 6u + 320u);
}

TEST(ModelRegistryTest, TakesNoNameTwice) {
  const std::vector<Model> twice = {MlpModels("tiny", 1, 576)[0], MlpModels("tiny", 1, 576)[0]};
  EXPECT_DEATH(ModelRegistry{twice}, "check failed: is_new");
}

}  // namespace
}  // namespace swiglu::server
