// SPDX-License-Identifier: Apache-2.0
//
// Names, limits, uses and ends of regions: every way in which a region comes and goes.
#include "server/regions/region_registry.h"

#include <chrono>
#include <limits>
#include <string>

#include "gtest/gtest.h"
#include "tests/regions/fake_opener.h"

namespace swiglu::server {
namespace {

constexpr auto kSystem = RegionKind::kSystem;
constexpr auto kCuda = RegionKind::kCuda;

class Owner final : public RegionOwner {
 public:
  bool HasEnded() const override { return has_ended; }
  bool has_ended = false;
};

class RegionRegistryTest : public testing::Test {
 protected:
  // Registers, and gives the fault, or nullopt for none.
  std::optional<RegionFault> Register(const std::string& name, const RegionSpec& spec,
                                      std::shared_ptr<const RegionOwner> owner = nullptr) {
    const auto refusal = registry().Register(name, spec, std::move(owner), now_);
    return refusal.has_value() ? std::make_optional(refusal->fault) : std::nullopt;
  }
  RegionUse Find(const std::string& name) { return registry().Find(name, now_); }

  RegionRegistry& registry() {
    if (registry_ == nullptr) {
      registry_ = std::make_unique<RegionRegistry>(limits_, &opener_, [this] { ++num_released_; });
    }
    return *registry_;
  }

  RegionLimits limits_{.enabled = {true, true}};
  FakeOpener opener_;
  int num_released_ = 0;
  Clock::time_point now_{std::chrono::hours(1)};
  std::unique_ptr<RegionRegistry> registry_;
};

TEST_F(RegionRegistryTest, FindsWhatIsRegistered) {
  EXPECT_EQ(Find("r"), nullptr);
  EXPECT_EQ(Register("r", SystemSpec(64)), std::nullopt);
  EXPECT_EQ(Register("c", CudaSpec(128, 3)), std::nullopt);
  ASSERT_NE(Find("r"), nullptr);
  EXPECT_EQ(Find("r")->size_bytes(), 64);
  EXPECT_EQ(Find("r")->kind(), kSystem);
  EXPECT_EQ(Find("c")->memory().device(), 3);
  EXPECT_EQ(Find("R"), nullptr);
  EXPECT_EQ(registry().num_regions(kSystem), 1);
  EXPECT_EQ(registry().size_bytes(kSystem), 64);
  EXPECT_EQ(registry().size_bytes(kCuda), 128);
}

TEST_F(RegionRegistryTest, ListsOneKindByName) {
  Register("b", SystemSpec(2, 4096));
  Register("a", SystemSpec(1));
  Register("c", CudaSpec(3, 1));
  const auto system = registry().List(kSystem, "");
  ASSERT_EQ(system.size(), 2u);
  EXPECT_EQ(system[0].name, "a");
  EXPECT_EQ(system[1].name, "b");
  EXPECT_EQ(system[1].size_bytes, 2);
  EXPECT_EQ(system[1].offset, 4096);
  ASSERT_EQ(registry().List(kCuda, "c").size(), 1u);
  EXPECT_EQ(registry().List(kCuda, "c")[0].device, 1);
  EXPECT_TRUE(registry().List(kCuda, "a").empty());
}

TEST_F(RegionRegistryTest, HasOneNamespaceForBothKinds) {
  EXPECT_EQ(Register("r", SystemSpec(64)), std::nullopt);
  EXPECT_EQ(Register("r", SystemSpec(64)), RegionFault::kNameInUse);
  EXPECT_EQ(Register("r", CudaSpec(64)), RegionFault::kNameInUse);
  EXPECT_EQ(opener_.state.num_open, 1);
  EXPECT_EQ(registry().num_refused(RegionFault::kNameInUse), 2);
}

TEST_F(RegionRegistryTest, UnregistersOneOrAllOfAKind) {
  for (const char* name : {"a", "b", "c"}) Register(name, SystemSpec(64));
  Register("d", CudaSpec(64));
  registry().Unregister(kSystem, "d");  // of the other kind
  registry().Unregister(kSystem, "unknown");
  EXPECT_EQ(opener_.state.num_open, 4);
  registry().Unregister(kSystem, "b");
  EXPECT_EQ(Find("b"), nullptr);
  EXPECT_EQ(opener_.state.num_open, 3);
  registry().Unregister(kSystem, "");
  EXPECT_EQ(opener_.state.num_open, 1);
  EXPECT_NE(Find("d"), nullptr);
  EXPECT_EQ(registry().size_bytes(kSystem), 0);
  EXPECT_EQ(registry().num_regions(kSystem), 0);
}

TEST_F(RegionRegistryTest, ClosesABusyRegionWhenItsLastUseEnds) {
  Register("r", SystemSpec(64));
  RegionUse first = Find("r");
  RegionUse second = Find("r");
  registry().Unregister(kSystem, "r");
  EXPECT_EQ(Find("r"), nullptr);
  EXPECT_EQ(registry().num_regions(kSystem), 0);
  EXPECT_EQ(registry().size_bytes(kSystem), 64);
  first.reset();
  registry().CloseReleased();
  EXPECT_EQ(opener_.state.num_open, 1);
  EXPECT_EQ(num_released_, 0);
  second.reset();
  EXPECT_EQ(num_released_, 1);
  EXPECT_EQ(opener_.state.num_open, 1) << "closed by the thread that used it";
  registry().CloseReleased();
  EXPECT_EQ(opener_.state.num_open, 0);
  EXPECT_EQ(registry().size_bytes(kSystem), 0);
}

TEST_F(RegionRegistryTest, FreesTheNameOfABusyRegionAtOnce) {
  Register("r", SystemSpec(64));
  const RegionUse old = Find("r");
  registry().Unregister(kSystem, "r");
  EXPECT_EQ(Register("r", SystemSpec(32)), std::nullopt);
  EXPECT_EQ(Find("r")->size_bytes(), 32);
  EXPECT_EQ(old->size_bytes(), 64);
  EXPECT_EQ(registry().size_bytes(kSystem), 96);
}

TEST_F(RegionRegistryTest, RefusesWhatIsOverALimit) {
  limits_.max_regions = 2;
  limits_.max_region_bytes = 100;
  limits_.max_pinned_bytes = 150;
  EXPECT_EQ(Register("a", SystemSpec(101)), RegionFault::kTooLarge);
  EXPECT_EQ(Register("a", SystemSpec(100)), std::nullopt);
  const auto refusal = registry().Register("b", SystemSpec(51), nullptr, now_);
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->fault, RegionFault::kPinnedLimit);
  EXPECT_EQ(refusal->limit, 150);
  EXPECT_EQ(Register("b", CudaSpec(100)), std::nullopt) << "pins nothing";
  const auto too_many = registry().Register("c", SystemSpec(1), nullptr, now_);
  ASSERT_TRUE(too_many.has_value());
  EXPECT_EQ(too_many->fault, RegionFault::kTooMany);
  EXPECT_EQ(too_many->found, 2);
  EXPECT_EQ(too_many->limit, 2);
  registry().Unregister(kCuda, "b");
  EXPECT_EQ(Register("c", SystemSpec(50)), std::nullopt);
}

TEST_F(RegionRegistryTest, CountsTheBytesOfABusyRegionUntilItIsClosed) {
  limits_.max_pinned_bytes = 100;
  Register("r", SystemSpec(100));
  RegionUse use = Find("r");
  registry().Unregister(kSystem, "r");
  EXPECT_EQ(Register("s", SystemSpec(1)), RegionFault::kPinnedLimit);
  use.reset();
  EXPECT_EQ(Register("s", SystemSpec(100)), std::nullopt);
}

TEST_F(RegionRegistryTest, RefusesSizesThatNoMemoryHas) {
  EXPECT_EQ(Register("r", SystemSpec(0)), RegionFault::kSize);
  limits_.max_pinned_bytes = int64_t{1} << 40;
  registry_.reset();
  EXPECT_EQ(Register("r", SystemSpec(std::numeric_limits<uint64_t>::max())),
            RegionFault::kPinnedLimit);
  EXPECT_EQ(registry().size_bytes(kSystem), 0);
}

TEST_F(RegionRegistryTest, RefusesNamesThatAreNone) {
  EXPECT_EQ(Register("", SystemSpec(64)), RegionFault::kName);
  EXPECT_EQ(Register(std::string(256, 'x'), SystemSpec(64)), RegionFault::kName);
  EXPECT_EQ(Register(std::string(255, 'x'), SystemSpec(64)), std::nullopt);
}

TEST_F(RegionRegistryTest, RefusesKindsThatAreOff) {
  limits_.enabled = {true, false};
  EXPECT_EQ(Register("c", CudaSpec(64)), RegionFault::kDisabled);
  EXPECT_EQ(Register("r", SystemSpec(64)), std::nullopt);
  EXPECT_TRUE(registry().is_enabled());
}

TEST_F(RegionRegistryTest, ChangesNothingWhenTheMemoryCannotBeOpened) {
  opener_.refusal = RegionRefusal{RegionFault::kKey};
  EXPECT_EQ(Register("r", SystemSpec(64)), RegionFault::kKey);
  EXPECT_EQ(Find("r"), nullptr);
  EXPECT_EQ(registry().size_bytes(kSystem), 0);
  opener_.refusal.reset();
  EXPECT_EQ(Register("r", SystemSpec(64)), std::nullopt);
}

TEST_F(RegionRegistryTest, LosesARegionWhoseFileBecameShorter) {
  Register("r", SystemSpec(64));
  const RegionUse use = Find("r");
  opener_.state.is_shrunk = true;
  EXPECT_EQ(Find("r"), nullptr);
  opener_.state.is_shrunk = false;
  EXPECT_EQ(Find("r"), nullptr) << "it came back";
  EXPECT_TRUE(registry().List(kSystem, "").empty());
  registry().DropAbandoned(now_);
  EXPECT_EQ(registry().num_regions(kSystem), 0);
  EXPECT_EQ(opener_.state.num_open, 1);
}

TEST_F(RegionRegistryTest, GivesTheNameOfAShortenedFileAway) {
  Register("r", SystemSpec(64));
  Register("s", SystemSpec(64));
  opener_.state.is_shrunk = true;
  EXPECT_EQ(Register("r", SystemSpec(32)), std::nullopt);
  registry().DropAbandoned(now_);
  EXPECT_EQ(registry().num_regions(kSystem), 0) << "nobody has asked for them";
}

TEST_F(RegionRegistryTest, LosesARegionWithAHole) {
  Register("r", SystemSpec(64));
  opener_.state.has_hole = true;
  EXPECT_EQ(Find("r"), nullptr);
  registry().DropAbandoned(now_);
  registry().CloseReleased();
  EXPECT_EQ(opener_.state.num_open, 0);
}

TEST_F(RegionRegistryTest, DropsRegionsWhoseOwnerHasEnded) {
  const auto owner = std::make_shared<Owner>();
  Register("r", SystemSpec(64), owner);
  Register("s", SystemSpec(64));
  registry().DropAbandoned(now_ + std::chrono::hours(1000));
  EXPECT_NE(Find("r"), nullptr);
  owner->has_ended = true;
  registry().DropAbandoned(now_);
  EXPECT_EQ(Find("r"), nullptr);
  EXPECT_NE(Find("s"), nullptr);
}

TEST_F(RegionRegistryTest, DropsRegionsThatNobodyHasUsedForTheTimeout) {
  limits_.idle_timeout = std::chrono::seconds(10);
  Register("idle", SystemSpec(64));
  Register("used", SystemSpec(64));
  Register("busy", SystemSpec(64));
  RegionUse use = Find("busy");
  now_ += std::chrono::seconds(9);
  registry().DropAbandoned(now_);
  EXPECT_NE(registry().List(kSystem, "idle").size(), 0u);
  Find("used");
  now_ += std::chrono::seconds(1);
  registry().DropAbandoned(now_);
  EXPECT_EQ(registry().List(kSystem, "idle").size(), 0u);
  EXPECT_EQ(registry().List(kSystem, "used").size(), 1u);
  EXPECT_EQ(registry().List(kSystem, "busy").size(), 1u);
  // The time counts from the end of a use.
  Find("used");
  now_ += std::chrono::seconds(9);
  registry().DropAbandoned(now_);
  use.reset();
  registry().DropAbandoned(now_ + std::chrono::seconds(9));
  EXPECT_EQ(registry().List(kSystem, "busy").size(), 1u);
  registry().DropAbandoned(now_ + std::chrono::seconds(10));
  EXPECT_EQ(registry().List(kSystem, "busy").size(), 0u);
}

TEST_F(RegionRegistryTest, TakesTheRoomOfAbandonedRegionsForNewOnes) {
  limits_.max_regions = 1;
  const auto owner = std::make_shared<Owner>();
  Register("r", SystemSpec(64), owner);
  EXPECT_EQ(Register("s", SystemSpec(64)), RegionFault::kTooMany);
  owner->has_ended = true;
  EXPECT_EQ(Register("s", SystemSpec(64)), std::nullopt);
}

}  // namespace
}  // namespace swiglu::server
