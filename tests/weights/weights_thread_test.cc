// SPDX-License-Identifier: Apache-2.0
//
// The thread that loads weights: the first load, and reloads that wait for each other, are refused,
// are cancelled or fail.
#include "server/weights/weights_thread.h"

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"
#include "tests/client/temp_folder.h"
#include "tests/weights/fake_loader.h"
#include "tests/weights/model_writer.h"

namespace swiglu::server {
namespace {

using MaybeRefusal = std::optional<ReloadRefusal>;

// One call of Reload: whether its caller has gone, and how it ended.
class ReloadCall {
 public:
  void Send(WeightsThread& thread, const std::string& mlp) {
    thread.Reload(mlp, cancelled_, [this](const MaybeRefusal& refusal) {
      refusal_ = refusal;
      if (then) then();
      ended_.Notify();
    });
  }
  void Cancel() { cancelled_->store(true); }
  bool has_ended() const { return ended_.HasBeenNotified(); }
  const MaybeRefusal& Wait() {
    ended_.WaitForNotification();
    return refusal_;
  }
  // Waits for the end, which must be a refusal.
  ReloadFault Fault() {
    const MaybeRefusal& refusal = Wait();
    EXPECT_TRUE(refusal.has_value());
    return refusal.has_value() ? refusal->fault : ReloadFault::kFailed;
  }

  std::function<void()> then;  // called at the end

 private:
  const std::shared_ptr<std::atomic<bool>> cancelled_ = std::make_shared<std::atomic<bool>>(false);
  MaybeRefusal refusal_;
  absl::Notification ended_;
};

// Two MLPs of one layer, `a` and `b`. `b` has layer 1, so that the loader can tell them apart.
class WeightsThreadTest : public testing::Test {
 protected:
  WeightsThreadTest() {
    auto store = MlpStore::Open(
        {{"a", Write("a", "layers.0.mlp.", 1), {}}, {"b", Write("b", "layers.1.mlp.", 5), {}}});
    EXPECT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    thread_ = std::make_unique<WeightsThread>(store_.get(), &loader_, 2);
    loader_.before = [this](int layer, const Weights* /*current*/) {
      absl::MutexLock lock(&mutex_);
      begun_.push_back(layer);
      const auto may_go = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !holds_; };
      mutex_.Await(absl::Condition(&may_go));
      return result_;
    };
  }
  ~WeightsThreadTest() override { Release(); }

  std::string Write(const std::string& name, const std::string& stem, uint32_t seed) const {
    return folder_.Write(name + ".safetensors", ModelFile(SmallMlp(stem, seed)));
  }
  void Start() {
    thread_->Start([this](const absl::Status& status) {
      loaded_ = status;
      has_loaded_.Notify();
    });
  }
  void StartAndLoad() {
    Start();
    has_loaded_.WaitForNotification();
    EXPECT_TRUE(loaded_.ok()) << loaded_;
    absl::MutexLock lock(&mutex_);
    begun_.clear();
  }
  // From here on the loader waits at the beginning of each layer, until `Release`.
  void Hold() {
    absl::MutexLock lock(&mutex_);
    holds_ = true;
  }
  void Release(absl::Status result = absl::OkStatus()) {
    absl::MutexLock lock(&mutex_);
    holds_ = false;
    result_ = std::move(result);
  }
  void AwaitBegun(size_t count) {
    absl::MutexLock lock(&mutex_);
    const auto enough = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return begun_.size() >= count;
    };
    mutex_.Await(absl::Condition(&enough));
  }
  std::vector<int> begun() {
    absl::MutexLock lock(&mutex_);
    return begun_;
  }
  std::string Hash(size_t mlp) const { return store_->mlps()[mlp].slots[0].Get()->sha256(); }

  TempFolder folder_;
  std::unique_ptr<MlpStore> store_;
  FakeLoader loader_;
  absl::Mutex mutex_;
  bool holds_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status result_ ABSL_GUARDED_BY(mutex_);
  std::vector<int> begun_ ABSL_GUARDED_BY(mutex_);  // the layers, in order
  absl::Status loaded_;
  absl::Notification has_loaded_;
  ReloadCall first_, second_, third_;
  std::unique_ptr<WeightsThread> thread_;  // ends first
};

TEST_F(WeightsThreadTest, LoadsAllAndSaysSo) {
  StartAndLoad();
  EXPECT_TRUE(store_->is_loaded());
}

TEST_F(WeightsThreadTest, SaysWhyTheFirstLoadFailed) {
  Release(absl::ResourceExhaustedError("no room"));
  Start();
  has_loaded_.WaitForNotification();
  EXPECT_EQ(loaded_.code(), absl::StatusCode::kResourceExhausted);
  first_.Send(*thread_, "mlp_a");
  EXPECT_EQ(first_.Fault(), ReloadFault::kLoading);
}

TEST_F(WeightsThreadTest, RefusesReloadsDuringTheFirstLoad) {
  first_.Send(*thread_, "mlp_a");
  EXPECT_EQ(first_.Fault(), ReloadFault::kLoading);
  Hold();
  Start();
  AwaitBegun(2);
  second_.Send(*thread_, "mlp_b");
  EXPECT_EQ(second_.Fault(), ReloadFault::kLoading);
  Release();
  has_loaded_.WaitForNotification();
  third_.Send(*thread_, "mlp_b");
  EXPECT_FALSE(third_.Wait().has_value());
}

TEST_F(WeightsThreadTest, StopEndsTheFirstLoadWithoutAWord) {
  Hold();
  Start();
  AwaitBegun(2);
  thread_->Stop();
  first_.Send(*thread_, "mlp_a");
  EXPECT_EQ(first_.Fault(), ReloadFault::kStopping);
  Release();
  thread_->Join();
  EXPECT_FALSE(has_loaded_.HasBeenNotified());
  EXPECT_FALSE(store_->is_loaded());
}

TEST_F(WeightsThreadTest, JoinBeforeGivesUpALoadThatHangs) {
  Hold();
  Start();
  AwaitBegun(2);
  EXPECT_FALSE(thread_->JoinBefore(absl::InfinitePast()));
  Release();
  EXPECT_TRUE(thread_->JoinBefore(absl::InfiniteFuture()));
  EXPECT_FALSE(has_loaded_.HasBeenNotified());
}

TEST_F(WeightsThreadTest, JoinBeforeNeedsNoStart) {
  EXPECT_TRUE(thread_->JoinBefore(absl::InfinitePast()));
}

TEST_F(WeightsThreadTest, ReloadsTheMlpThatIsNamed) {
  StartAndLoad();
  const std::string a = Hash(0), b = Hash(1);
  Write("a", "layers.0.mlp.", 11);
  Write("b", "layers.1.mlp.", 15);
  first_.Send(*thread_, "mlp_b");
  EXPECT_FALSE(first_.Wait().has_value());
  EXPECT_EQ(Hash(0), a);
  EXPECT_NE(Hash(1), b);
  EXPECT_EQ(begun(), std::vector<int>{1});
}

TEST_F(WeightsThreadTest, SaysWhyAReloadFailed) {
  StartAndLoad();
  const std::string a = Hash(0);
  Release(absl::ResourceExhaustedError("no room"));
  first_.Send(*thread_, "mlp_a");
  EXPECT_EQ(first_.Fault(), ReloadFault::kFailed);
  EXPECT_EQ(first_.Wait()->status, absl::ResourceExhaustedError("no room"));
  EXPECT_EQ(Hash(0), a);
}

TEST_F(WeightsThreadTest, RefusesASecondReloadOfTheSameMlp) {
  StartAndLoad();
  Hold();
  first_.Send(*thread_, "mlp_a");
  AwaitBegun(1);
  second_.Send(*thread_, "mlp_a");
  EXPECT_EQ(second_.Fault(), ReloadFault::kUnderWay);
  EXPECT_FALSE(first_.has_ended());
  Release();
  EXPECT_FALSE(first_.Wait().has_value());
  // As soon as a caller has its answer, the next may call.
  third_.Send(*thread_, "mlp_a");
  EXPECT_FALSE(third_.Wait().has_value());
}

TEST_F(WeightsThreadTest, TakesTheNextReloadBeforeTheAnswerToTheLast) {
  StartAndLoad();
  first_.then = [this] { second_.Send(*thread_, "mlp_a"); };
  first_.Send(*thread_, "mlp_a");
  EXPECT_FALSE(first_.Wait().has_value());
  EXPECT_FALSE(second_.Wait().has_value());
}

TEST_F(WeightsThreadTest, ReloadsOneMlpAfterTheOther) {
  StartAndLoad();
  Hold();
  first_.Send(*thread_, "mlp_b");
  AwaitBegun(1);
  second_.Send(*thread_, "mlp_a");
  third_.Send(*thread_, "mlp_a");
  EXPECT_EQ(third_.Fault(), ReloadFault::kUnderWay) << "one waits already";
  EXPECT_EQ(begun(), std::vector<int>{1});
  Release();
  EXPECT_FALSE(first_.Wait().has_value());
  EXPECT_FALSE(second_.Wait().has_value());
  EXPECT_EQ(begun(), (std::vector<int>{1, 0}));
}

TEST_F(WeightsThreadTest, EndsAReloadWhoseCallerGoes) {
  StartAndLoad();
  const std::string a = Hash(0);
  Write("a", "layers.0.mlp.", 11);
  Hold();
  first_.Send(*thread_, "mlp_a");
  AwaitBegun(1);
  first_.Cancel();
  Release();
  EXPECT_EQ(first_.Fault(), ReloadFault::kCancelled);
  EXPECT_EQ(Hash(0), a);
}

TEST_F(WeightsThreadTest, DoesNotBeginAReloadWhoseCallerHasGone) {
  StartAndLoad();
  Hold();
  first_.Send(*thread_, "mlp_a");
  AwaitBegun(1);
  second_.Send(*thread_, "mlp_b");
  second_.Cancel();
  Release();
  EXPECT_FALSE(first_.Wait().has_value());
  EXPECT_EQ(second_.Fault(), ReloadFault::kCancelled);
  EXPECT_EQ(begun(), std::vector<int>{0});
}

TEST_F(WeightsThreadTest, AReloadWhoseCallerHasGoneDoesNotStandInTheWay) {
  StartAndLoad();
  Hold();
  first_.Send(*thread_, "mlp_a");
  AwaitBegun(1);
  second_.Send(*thread_, "mlp_b");
  second_.Cancel();
  third_.Send(*thread_, "mlp_b");
  EXPECT_EQ(second_.Fault(), ReloadFault::kCancelled);
  Release();
  EXPECT_FALSE(first_.Wait().has_value());
  EXPECT_FALSE(third_.Wait().has_value());
}

TEST_F(WeightsThreadTest, StopEndsAllReloads) {
  StartAndLoad();
  const std::string a = Hash(0);
  Write("a", "layers.0.mlp.", 11);
  Hold();
  first_.Send(*thread_, "mlp_a");
  AwaitBegun(1);
  second_.Send(*thread_, "mlp_b");
  thread_->Stop();
  third_.Send(*thread_, "mlp_a");
  EXPECT_EQ(third_.Fault(), ReloadFault::kStopping);
  Release();
  EXPECT_EQ(first_.Fault(), ReloadFault::kStopping);
  EXPECT_EQ(second_.Fault(), ReloadFault::kStopping);
  EXPECT_EQ(Hash(0), a);
  EXPECT_EQ(begun(), std::vector<int>{0});
  thread_->Join();
}

}  // namespace
}  // namespace swiglu::server
