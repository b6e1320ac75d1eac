// SPDX-License-Identifier: Apache-2.0
//
// Loading all MLPs of a server, and loading one of them anew, with a loader that only reads.
#include "server/weights/mlp_store.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <deque>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tests/client/temp_folder.h"
#include "tests/weights/fake_loader.h"
#include "tests/weights/model_writer.h"

namespace swiglu::server {
namespace {

// Two MLPs: `a` with the layers 0 to 2, and `b` with layer 0.
class MlpStoreTest : public testing::Test {
 protected:
  MlpStoreTest() {
    WriteA(ThreeLayers(1));
    const std::string b = folder_.Write("b.safetensors", ModelFile(SmallMlp("", 1)));
    auto store = MlpStore::Open({{"a", path_, {}}, {"b", b, {}}});
    EXPECT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  static std::vector<TestTensor> ThreeLayers(uint32_t seed) {
    return Joined({SmallMlp("model.layers.0.mlp.", seed), SmallMlp("model.layers.1.mlp.", seed + 3),
                   SmallMlp("model.layers.2.mlp.", seed + 6)});
  }
  // Writes the file of `a`.
  void WriteA(const std::vector<TestTensor>& tensors) const {
    folder_.Write("a.safetensors", ModelFile(tensors));
  }
  absl::Status Reload(int num_threads = 2) {
    return store_->Reload(0, loader_, num_threads, [] { return true; });
  }
  // Of every layer of the MLP at `index`; "none" without weights.
  std::vector<std::string> Hashes(size_t index) const {
    std::vector<std::string> hashes;
    for (const WeightsSlot& slot : store_->mlps()[index].slots) {
      const auto weights = slot.Get();
      hashes.push_back(weights == nullptr ? "none" : weights->sha256());
    }
    return hashes;
  }
  LoadFigures Loads(size_t index) const { return FiguresOf(store_->mlps()[index]).loads; }

  TempFolder folder_;
  const std::string path_ = folder_.Path("a.safetensors");
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
  loader_.before = [&](int, const Weights*) {
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
  loader_.before = [&](int layer, const Weights*) {
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
  loader_.before = [&](int layer, const Weights*) {
    if (layer == 1) store_->Cancel();
    return absl::OkStatus();
  };
  EXPECT_EQ(store_->Load(loader_, 1).code(), absl::StatusCode::kCancelled);
  EXPECT_NE(store_->mlps()[0].slots[0].Get(), nullptr);
  EXPECT_EQ(store_->mlps()[0].slots[1].Get(), nullptr);
}

using NumEnded = std::array<int64_t, kNumLoadResults>;

TEST_F(MlpStoreTest, TellsHowTheFirstLoadGoes) {
  EXPECT_FALSE(Loads(0).is_loading);
  EXPECT_EQ(Loads(0).num_ended, (NumEnded{0, 0, 0}));
  EXPECT_EQ(Loads(0).last_success, absl::UnixEpoch());
  EXPECT_TRUE(FiguresOf(store_->mlps()[0]).places.empty());
  std::vector<int64_t> loaded_bytes;
  loader_.before = [&](int, const Weights*) {
    EXPECT_TRUE(Loads(0).is_loading);
    loaded_bytes.push_back(Loads(0).loaded_bytes);
    return absl::OkStatus();
  };
  const absl::Time start = absl::Now();
  EXPECT_TRUE(store_->Load(loader_, 1).ok());
  // The last one is the layer of `b`.
  EXPECT_EQ(loaded_bytes, (std::vector<int64_t>{0, 768, 2 * 768, 3 * 768}));
  for (const size_t index : {0, 1}) {
    EXPECT_FALSE(Loads(index).is_loading);
    EXPECT_EQ(Loads(index).num_ended, (NumEnded{1, 0, 0}));
    EXPECT_GE(Loads(index).last_success, start);
    EXPECT_LE(Loads(index).last_success, absl::Now());
    EXPECT_GT(Loads(index).last_duration.count(), 0);
  }
  const MlpFigures figures = FiguresOf(store_->mlps()[0]);
  EXPECT_EQ(figures.size_bytes, 3 * 768);
  ASSERT_EQ(figures.places.size(), 3u);
  EXPECT_EQ(figures.places[2].device, kCpuDevice);
  EXPECT_EQ(figures.places[2].size_bytes, 768);
}

TEST_F(MlpStoreTest, ReplacesTheWeightsOfOneMlp) {
  ASSERT_TRUE(store_->Load(loader_, 3).ok());
  const std::vector<std::string> old_a = Hashes(0), old_b = Hashes(1);
  // The middle layer stays the same.
  WriteA(Joined({SmallMlp("model.layers.0.mlp.", 11), SmallMlp("model.layers.1.mlp.", 4),
                 SmallMlp("model.layers.2.mlp.", 17)}));
  absl::Mutex mutex;
  std::vector<std::string> replaced(3);
  loader_.before = [&](int layer, const Weights* current) {
    absl::MutexLock lock(&mutex);
    replaced[static_cast<size_t>(layer)] = current->sha256();
    return absl::OkStatus();
  };
  EXPECT_TRUE(Reload().ok());
  EXPECT_EQ(replaced, old_a);
  const std::vector<std::string> new_a = Hashes(0);
  EXPECT_NE(new_a[0], old_a[0]);
  EXPECT_EQ(new_a[1], old_a[1]);
  EXPECT_NE(new_a[2], old_a[2]);
  EXPECT_EQ(Hashes(1), old_b);
  EXPECT_EQ(Loads(0).num_ended, (NumEnded{2, 0, 0}));
  EXPECT_EQ(Loads(0).loaded_bytes, 3 * 768);
  EXPECT_EQ(Loads(1).num_ended, (NumEnded{1, 0, 0}));
}

TEST_F(MlpStoreTest, ReadsThePathAnewEachTime) {
  ASSERT_TRUE(store_->Load(loader_, 1).ok());
  const std::vector<std::string> first = Hashes(0);
  WriteA(ThreeLayers(11));
  EXPECT_TRUE(Reload().ok());
  EXPECT_NE(Hashes(0), first);
  WriteA(ThreeLayers(1));
  EXPECT_TRUE(Reload().ok());
  EXPECT_EQ(Hashes(0), first);
}

TEST_F(MlpStoreTest, NewWeightsAreInUseOnlyWhenAllAreReady) {
  ASSERT_TRUE(store_->Load(loader_, 1).ok());
  const std::vector<std::string> old = Hashes(0);
  WriteA(ThreeLayers(11));
  int num_begun = 0;
  loader_.before = [&](int, const Weights*) {
    ++num_begun;
    EXPECT_EQ(Hashes(0), old);
    return absl::OkStatus();
  };
  EXPECT_TRUE(Reload(1).ok());
  EXPECT_EQ(num_begun, 3);
  EXPECT_NE(Hashes(0), old);
}

TEST_F(MlpStoreTest, ReloadsAsManyLayersAtATimeAsItIsTold) {
  ASSERT_TRUE(store_->Load(loader_, 1).ok());
  absl::Mutex mutex;
  int num_now = 0, num_most = 0, num_begun = 0;
  loader_.before = [&](int, const Weights*) {
    absl::MutexLock lock(&mutex);
    ++num_begun;
    num_most = std::max(num_most, ++num_now);
    const auto have_met = [&] { return num_begun >= 2; };
    mutex.Await(absl::Condition(&have_met));
    --num_now;
    return absl::OkStatus();
  };
  EXPECT_TRUE(Reload(2).ok());
  EXPECT_EQ(num_most, 2);
}

TEST_F(MlpStoreTest, KeepsTheWeightsIfTheLastLayerFails) {
  ASSERT_TRUE(store_->Load(loader_, 1).ok());
  const std::vector<std::string> old = Hashes(0);
  const absl::Time last_success = Loads(0).last_success;
  WriteA(ThreeLayers(11));
  loader_.before = [](int layer, const Weights*) {
    return layer == 2 ? absl::ResourceExhaustedError("no room for layer 2") : absl::OkStatus();
  };
  EXPECT_EQ(Reload(1), absl::ResourceExhaustedError("no room for layer 2"));
  EXPECT_EQ(Hashes(0), old);
  EXPECT_EQ(Loads(0).num_ended, (NumEnded{1, 1, 0}));
  EXPECT_EQ(Loads(0).loaded_bytes, 2 * 768);
  EXPECT_EQ(Loads(0).last_success, last_success);
  EXPECT_FALSE(Loads(0).is_loading);
}

TEST_F(MlpStoreTest, KeepsTheWeightsIfTheFilesDoNotFit) {
  ASSERT_TRUE(store_->Load(loader_, 1).ok());
  const std::vector<std::string> old = Hashes(0);
  WriteA(Joined({ThreeLayers(11), SmallMlp("model.layers.3.mlp.", 20)}));
  EXPECT_EQ(Reload(), absl::FailedPreconditionError(
                          path_ + ": layer 3 has an MLP; this server has no model of it"));
  folder_.Write("a.safetensors", "none");
  EXPECT_EQ(Reload().code(), absl::StatusCode::kInvalidArgument);
  std::filesystem::remove(path_);
  EXPECT_EQ(Reload(), absl::NotFoundError(path_ + ": cannot open: No such file or directory"));
  EXPECT_EQ(Hashes(0), old);
  EXPECT_EQ(Loads(0).num_ended, (NumEnded{1, 3, 0}));
  EXPECT_EQ(Loads(0).loaded_bytes, 0);
}

TEST_F(MlpStoreTest, KeepsTheWeightsIfTheNewOnesAreWantedNoMore) {
  ASSERT_TRUE(store_->Load(loader_, 1).ok());
  const std::vector<std::string> old = Hashes(0);
  WriteA(ThreeLayers(11));
  // Before the first layer, between layers, and when all of them are ready.
  for (const int num_wanted : {0, 3, 6}) {
    int num_asked = 0;
    EXPECT_EQ(store_->Reload(0, loader_, 1, [&] { return num_asked++ < num_wanted; }).code(),
              absl::StatusCode::kCancelled);
    EXPECT_EQ(Hashes(0), old);
  }
  EXPECT_EQ(Loads(0).num_ended, (NumEnded{1, 0, 3}));
}

TEST_F(MlpStoreTest, CancelEndsAReload) {
  ASSERT_TRUE(store_->Load(loader_, 1).ok());
  const std::vector<std::string> old = Hashes(0);
  WriteA(ThreeLayers(11));
  loader_.before = [&](int, const Weights*) {
    store_->Cancel();
    return absl::OkStatus();
  };
  EXPECT_EQ(Reload().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(Hashes(0), old);
}

// With a lock for each slot, a reader would soon find an old one behind the new first one.
TEST(WeightsSlotTest, ExchangesAllAtTheSameMoment) {
  absl::Mutex mutex;
  std::deque<WeightsSlot> slots;
  for (int i = 0; i < 20'000; ++i) slots.emplace_back(&mutex);
  for (int round = 0; round < 20; ++round) {
    const auto weights = std::make_shared<const ReadWeights>("", 0);
    std::vector<std::shared_ptr<const Weights>> all(slots.size(), weights);
    std::thread reader([&] {
      while (slots.front().Get() != weights) {
      }
      EXPECT_EQ(slots.back().Get(), weights);
    });
    WeightsSlot::Exchange(slots, all);
    reader.join();
    EXPECT_EQ(slots[1].Get(), weights);
    EXPECT_NE(all[1], weights);
  }
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
