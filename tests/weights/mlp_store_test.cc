// SPDX-License-Identifier: Apache-2.0
//
// Loading all MLPs of a server, with a loader that only reads.
#include "server/weights/mlp_store.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"
#include "tests/client/temp_folder.h"
#include "tests/weights/model_writer.h"

namespace swiglu::server {
namespace {

class ReadWeights final : public Weights {
 public:
  explicit ReadWeights(std::string sha256) : Weights(std::move(sha256)) {}
};

class FakeLoader final : public WeightsLoader {
 public:
  // Called at the beginning of each load.
  std::function<absl::Status(int layer)> before = [](int) { return absl::OkStatus(); };

  absl::StatusOr<std::shared_ptr<const Weights>> Load(
      const MlpFiles& files, size_t index, const Weights* /*current*/,
      absl::FunctionRef<absl::Status(int64_t)> on_progress) override {
    const MlpLayer& layer = files.layers()[index];
    if (absl::Status status = before(layer.number); !status.ok()) return status;
    std::vector<std::byte> memory(static_cast<size_t>(layer.size_bytes()));
    const std::span<std::byte> all(memory);
    const auto one = static_cast<size_t>(layer.matrix_bytes());
    auto hash =
        files.ReadLayer(index, {all.first(one), all.subspan(one, one), all.last(one)}, on_progress);
    if (!hash.ok()) return hash.status();
    return std::make_shared<const ReadWeights>(*std::move(hash));
  }
};

// Two MLPs: `a` with the layers 0 to 2, and `b` with layer 0.
class MlpStoreTest : public testing::Test {
 protected:
  MlpStoreTest() {
    const std::string a = folder_.Write(
        "a.safetensors",
        ModelFile(Joined({SmallMlp("model.layers.0.mlp.", 1), SmallMlp("model.layers.1.mlp.", 4),
                          SmallMlp("model.layers.2.mlp.", 7)})));
    const std::string b = folder_.Write("b.safetensors", ModelFile(SmallMlp("", 1)));
    auto store = MlpStore::Open({{"a", a, {}}, {"b", b, {}}});
    EXPECT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  TempFolder folder_;
  std::unique_ptr<MlpStore> store_;
  FakeLoader loader_;
};

TEST_F(MlpStoreTest, FillsEverySlot) {
  EXPECT_EQ(store_->total_bytes(), 4 * 768);
  EXPECT_FALSE(store_->is_loaded());
  EXPECT_EQ(store_->mlps()[0].slots[0].Get(), nullptr);
  EXPECT_TRUE(store_->Load(loader_, 3).ok());
  EXPECT_TRUE(store_->is_loaded());
  EXPECT_EQ(store_->loaded_bytes(), 4 * 768);
  EXPECT_EQ(store_->mlps()[0].files, nullptr);
  const auto sha256 = [this](size_t mlp, size_t layer) {
    return store_->mlps()[mlp].slots[layer].Get()->sha256();
  };
  // `b` has the bytes of the first layer of `a`.
  EXPECT_EQ(sha256(1, 0), sha256(0, 0));
  EXPECT_NE(sha256(0, 0), sha256(0, 1));
  EXPECT_NE(sha256(0, 1), sha256(0, 2));
}

TEST_F(MlpStoreTest, LoadsAsManyLayersAtATimeAsItIsTold) {
  absl::Mutex mutex;
  int num_now = 0, num_most = 0, num_begun = 0;
  loader_.before = [&](int) {
    absl::MutexLock lock(&mutex);
    ++num_begun;
    num_most = std::max(num_most, ++num_now);
    // The first two wait for each other, so they must run at the same time.
    const auto have_met = [&] { return num_begun >= 2; };
    mutex.Await(absl::Condition(&have_met));
    --num_now;
    return absl::OkStatus();
  };
  EXPECT_TRUE(store_->Load(loader_, 2).ok());
  EXPECT_EQ(num_most, 2);
  EXPECT_EQ(num_begun, 4);
}

TEST_F(MlpStoreTest, EndsWithTheFirstError) {
  std::atomic<int> num_begun{0};
  loader_.before = [&](int layer) {
    ++num_begun;
    return layer == 1 ? absl::ResourceExhaustedError("no room") : absl::OkStatus();
  };
  const absl::Status status = store_->Load(loader_, 1);
  EXPECT_EQ(status, absl::ResourceExhaustedError("mlp a: no room"));
  EXPECT_EQ(num_begun, 2);
  EXPECT_FALSE(store_->is_loaded());
  EXPECT_NE(store_->mlps()[0].slots[0].Get(), nullptr);
  EXPECT_EQ(store_->mlps()[0].slots[1].Get(), nullptr);
}

TEST_F(MlpStoreTest, EndsWhenItIsCancelled) {
  loader_.before = [&](int layer) {
    if (layer == 1) store_->Cancel();
    return absl::OkStatus();
  };
  EXPECT_EQ(store_->Load(loader_, 1).code(), absl::StatusCode::kCancelled);
  EXPECT_NE(store_->mlps()[0].slots[0].Get(), nullptr);
  EXPECT_EQ(store_->mlps()[0].slots[1].Get(), nullptr);
}

TEST(MlpStoreOpenTest, FailsLikeTheFiles) {
  const auto store = MlpStore::Open({{"a", "/nowhere", {}}});
  EXPECT_EQ(store.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store.status().message(), "/nowhere: cannot open: No such file or directory");
}

TEST(MlpStoreOpenTest, IsLoadedWithoutMlps) {
  const auto store = MlpStore::Open({});
  ASSERT_TRUE(store.ok());
  EXPECT_TRUE((*store)->is_loaded());
  FakeLoader loader;
  EXPECT_TRUE((*store)->Load(loader, 4).ok());
}

}  // namespace
}  // namespace swiglu::server
