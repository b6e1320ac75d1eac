// SPDX-License-Identifier: Apache-2.0
//
// The library's regions with the program swiglu-server: every mix of memory and regions gives the
// bits that messages give.
#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "swiglu/client.h"
#include "swiglu/shared_memory.h"
#include "tests/client/bytes.h"
#include "tests/client/server_process.h"
#include "tests/client/unnamed.h"

namespace swiglu::client {
namespace {

constexpr char kOn[] = "--system_shared_memory=on";

// Three inputs and three outputs, each in memory and in a region.
class Tensors {
 public:
  Tensors(Client* client, Dtype dtype, int64_t num_elements)
      : dtype_(dtype),
        num_elements_(num_elements),
        size_(num_elements * ElementBytes(dtype)),
        region_(SystemRegion::Create(*client, 6 * size_).value()) {
    for (int k = 0; k < 6; ++k) {
      memory_.push_back(Numbers(size_, static_cast<uint32_t>(k)));
      std::memcpy(region_.bytes().data() + k * size_, memory_[k].data(), memory_[k].size());
    }
  }

  // Tensor k: in the region if bit k of `mix` is set.
  InputTensor Input(int k, unsigned mix) const {
    if ((mix >> k & 1) != 0) return {dtype_, {num_elements_}, region_.Part(k * size_, size_)};
    return View(k);
  }
  OutputTensor Output(int k, unsigned mix) {
    if ((mix >> k & 1) != 0) return region_.Part(k * size_, size_);
    return AsWritableBytes(memory_[k]);
  }
  TensorView View(int k) const { return {dtype_, {num_elements_}, AsBytes(memory_[k])}; }
  std::string Text(int k, unsigned mix) const {
    if ((mix >> k & 1) == 0) return memory_[k];
    return AsText(region_.bytes().subspan(static_cast<size_t>(k * size_), memory_[k].size()));
  }

 private:
  const Dtype dtype_;
  const int64_t num_elements_;
  const int64_t size_;
  SystemRegion region_;
  std::vector<std::string> memory_;
};

TEST(ServerRegionsTest, EveryMixGivesTheBitsOfMessages) {
  const ServerProcess server({kOn});
  const auto client = Connect(server);
  for (const Dtype dtype : {Dtype::kFp16, Dtype::kBf16, Dtype::kFp32}) {
    Tensors tensors(client.get(), dtype, 1000);
    const auto expected = client->Backward(tensors.View(0), tensors.View(1), tensors.View(2));
    ASSERT_TRUE(expected.ok()) << expected.status();
    for (unsigned mix = 0; mix < 64; ++mix) {
      const auto input = [&](int k) { return tensors.Input(k, mix); };
      const auto output = [&](int k) { return tensors.Output(k, mix); };
      absl::Status status =
          client->BackwardInto(input(0), input(1), input(2), {output(3), output(4), output(5)});
      ASSERT_TRUE(status.ok()) << status << " " << mix;
      EXPECT_EQ(tensors.Text(3, mix), AsText(expected->h.bytes())) << mix;
      EXPECT_EQ(tensors.Text(4, mix), AsText(expected->df.bytes())) << mix;
      EXPECT_EQ(tensors.Text(5, mix), AsText(expected->de.bytes())) << mix;
      status = client->ForwardInto(input(1), input(2), output(5));
      ASSERT_TRUE(status.ok()) << status << " " << mix;
      EXPECT_EQ(tensors.Text(5, mix), AsText(expected->h.bytes())) << mix;
    }
  }
}

TEST(ServerRegionsTest, OutputsMayBeTheInputs) {
  const ServerProcess server({kOn});
  const auto client = Connect(server);
  Tensors tensors(client.get(), Dtype::kBf16, 100'000);
  const auto expected = client->Backward(tensors.View(0), tensors.View(1), tensors.View(2));
  ASSERT_TRUE(expected.ok()) << expected.status();
  constexpr unsigned kAll = 63;
  const auto input = [&](int k) { return tensors.Input(k, kAll); };
  const auto output = [&](int k) { return tensors.Output(k, kAll); };
  absl::Status status =
      client->BackwardInto(input(0), input(1), input(2), {output(0), output(1), output(2)});
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(tensors.Text(0, kAll), AsText(expected->h.bytes()));
  EXPECT_EQ(tensors.Text(1, kAll), AsText(expected->df.bytes()));
  EXPECT_EQ(tensors.Text(2, kAll), AsText(expected->de.bytes()));
}

TEST(ServerRegionsTest, MixIsSplit) {
  const ServerProcess server({kOn});
  const auto client = Connect(server, {.num_connections = 2, .max_message_bytes = 8192});
  Tensors tensors(client.get(), Dtype::kFp16, 50'000);
  const auto expected = client->Backward(tensors.View(0), tensors.View(1), tensors.View(2));
  ASSERT_TRUE(expected.ok()) << expected.status();
  for (const unsigned mix : {0b101010U, 0b010101U, 0b111011U, 0b000111U, 0b111000U}) {
    std::atomic<int64_t> num_chunks{1};
    CallOptions options;
    options.on_chunk = [&](int64_t, int64_t num) { num_chunks = num; };
    const absl::Status status = client->BackwardInto(
        tensors.Input(0, mix), tensors.Input(1, mix), tensors.Input(2, mix),
        {tensors.Output(3, mix), tensors.Output(4, mix), tensors.Output(5, mix)}, options);
    ASSERT_TRUE(status.ok()) << status << " " << mix;
    EXPECT_GT(num_chunks.load(), 10);
    EXPECT_EQ(tensors.Text(3, mix), AsText(expected->h.bytes())) << mix;
    EXPECT_EQ(tensors.Text(4, mix), AsText(expected->df.bytes())) << mix;
    EXPECT_EQ(tensors.Text(5, mix), AsText(expected->de.bytes())) << mix;
  }
}

TEST(ServerRegionsTest, RegionsComeAndGo) {
  const ServerProcess server({kOn});
  const auto client = Connect(server);
  {
    const auto region = SystemRegion::Create(*client, 4096, {.name = "mine"});
    ASSERT_TRUE(region.ok()) << region.status();
    const auto listed = client->ListRegions(RegionKind::kSystem);
    ASSERT_TRUE(listed.ok()) << listed.status();
    ASSERT_EQ(listed->size(), 1u);
    EXPECT_EQ(listed->front().name, "mine");
    EXPECT_EQ(listed->front().size_bytes, 4096);
    EXPECT_EQ(SystemRegion::Create(*client, 1, {.name = "mine"}).status().code(),
              absl::StatusCode::kAlreadyExists);
    EXPECT_TRUE(client->UnregisterRegion(RegionKind::kSystem, "mine").ok());
    const InputTensor input(Dtype::kFp16, {16}, region->Part(0, 32));
    EXPECT_EQ(Unnamed(client->ForwardInto(input, input, region->Part(32, 32))),
              absl::NotFoundError("unknown region 'mine'"));
  }
  EXPECT_TRUE(client->ListRegions(RegionKind::kSystem)->empty());
}

TEST(ServerRegionsTest, ServerWithoutSharedMemorySaysSo) {
  const ServerProcess server({});
  const auto client = Connect(server);
  const absl::Status status = SystemRegion::Create(*client, 4096).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("shared memory"));
}

TEST(ServerRegionsTest, PrefixAndSizeAreTheServers) {
  const ServerProcess server(
      {kOn, "--system_shared_memory_prefix=app_", "--max_region_bytes=1MiB"});
  const auto client = Connect(server);
  EXPECT_EQ(SystemRegion::Create(*client, 4096).status().code(),
            absl::StatusCode::kInvalidArgument);
  const SystemRegionOptions app{.file_prefix = "app_"};
  EXPECT_TRUE(SystemRegion::Create(*client, 4096, app).ok());
  EXPECT_EQ(SystemRegion::Create(*client, 2 << 20, app).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace swiglu::client
