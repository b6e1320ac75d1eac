// SPDX-License-Identifier: Apache-2.0
//
// Which new weights fit the models of an MLP, and the sentences about those that do not.
#include "server/weights/layer_match.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace swiglu::server {
namespace {

using LayerList = std::vector<MlpLayer>;

MlpLayer Layer(int number) { return {number, Dtype::kBf16, 64, 176}; }

std::string Difference(const LayerList& served, const LayerList& found) {
  const absl::Status status = CheckSameLayers("f", served, found);
  EXPECT_TRUE(status.ok() || absl::IsFailedPrecondition(status));
  return std::string(status.message());
}

TEST(LayerMatchTest, TakesTheSameLayers) {
  EXPECT_EQ(Difference({Layer(0)}, {Layer(0)}), "");
  EXPECT_EQ(Difference({Layer(2), Layer(5)}, {Layer(2), Layer(5)}), "");
}

TEST(LayerMatchTest, NamesALayerThatIsMissing) {
  for (const LayerList& found : {LayerList{Layer(4)}, LayerList{Layer(4), Layer(6)}}) {
    EXPECT_EQ(Difference({Layer(4), Layer(5), Layer(6)}, found),
              "f: layer 5 has no MLP; this server has a model of it");
  }
  EXPECT_EQ(Difference({Layer(4), Layer(5)}, {Layer(5)}),
            "f: layer 4 has no MLP; this server has a model of it");
}

TEST(LayerMatchTest, NamesALayerThatIsNew) {
  for (const LayerList& served : {LayerList{Layer(4)}, LayerList{Layer(4), Layer(6)}}) {
    EXPECT_EQ(Difference(served, {Layer(4), Layer(5), Layer(6)}),
              "f: layer 5 has an MLP; this server has no model of it");
  }
  EXPECT_EQ(Difference({Layer(5)}, {Layer(4), Layer(5)}),
            "f: layer 4 has an MLP; this server has no model of it");
}

TEST(LayerMatchTest, NamesALayerOfAnotherKind) {
  const LayerList served = {Layer(0), Layer(1)};
  const char* const rest = "; this server's model of it is BF16 with H = 64 and I = 176";
  EXPECT_EQ(Difference(served, {Layer(0), {1, Dtype::kFp16, 64, 176}}),
            std::string("f: layer 1 is FP16 with H = 64 and I = 176") + rest);
  EXPECT_EQ(Difference(served, {{0, Dtype::kBf16, 72, 176}, Layer(1)}),
            std::string("f: layer 0 is BF16 with H = 72 and I = 176") + rest);
  EXPECT_EQ(Difference(served, {Layer(0), {1, Dtype::kBf16, 64, 184}}),
            std::string("f: layer 1 is BF16 with H = 64 and I = 184") + rest);
}

}  // namespace
}  // namespace swiglu::server
