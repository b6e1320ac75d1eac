// SPDX-License-Identifier: Apache-2.0
//
// Regions on CUDA devices: pinned files, and memory of another process. All of it needs a device.
#include <cuda_runtime_api.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "server/base/descriptor.h"
#include "server/device/cuda_executor.h"
#include "server/device/cuda_region_opener.h"
#include "server/gpu/cuda_probe.h"
#include "swiglu/cuda.h"
#include "tests/byte_units.h"

namespace swiglu::server {
namespace {

// A process that has memory on a GPU.
class Peer {
 public:
  explicit Peer(size_t size_bytes) {
    int in[2];
    int out[2];
    EXPECT_EQ(::pipe2(in, O_CLOEXEC), 0);
    EXPECT_EQ(::pipe2(out, O_CLOEXEC), 0);
    const std::string bytes = std::to_string(size_bytes);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(in[0], STDIN_FILENO);
      ::dup2(out[1], STDOUT_FILENO);
      ::execl(CUDA_REGION_PEER, CUDA_REGION_PEER, bytes.c_str(), nullptr);
      ::_exit(1);
    }
    ::close(in[0]);
    ::close(out[1]);
    commands_ = ::fdopen(in[1], "w");
    answers_ = ::fdopen(out[0], "r");
    handle = absl::HexStringToBytes(Answer());
  }
  ~Peer() { Kill(); }

  std::string Ask(const std::string& command) {
    std::fprintf(commands_, "%s\n", command.c_str());
    std::fflush(commands_);
    return Answer();
  }
  void Kill() {
    if (pid_ == 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(std::exchange(pid_, 0), nullptr, 0);
    std::fclose(commands_);
    std::fclose(answers_);
  }

  std::string handle;

 private:
  std::string Answer() {
    char line[256] = "";
    if (std::fgets(line, sizeof(line), answers_) == nullptr) return "";
    return std::string(line, std::strcspn(line, "\n"));
  }

  pid_t pid_ = 0;
  FILE* commands_ = nullptr;
  FILE* answers_ = nullptr;
};

class CudaRegionTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto devices = FindCudaDevices();
    if (!devices.ok() || devices->empty()) GTEST_SKIP() << "needs a CUDA device";
    CudaExecutorOptions options;
    options.devices = {devices->front()};
    options.resident_lanes_per_device = 2;
    options.memory.capacity_bytes = 256 * kMiB;
    auto created = CreateCudaExecutor(options);
    ASSERT_TRUE(created.ok()) << created.status();
    executor_ = *std::move(created);
  }

  OpenedRegion Open(const std::string& handle, uint64_t size_bytes, int64_t device = 0) {
    return opener_.Open({size_bytes, CudaRegionSource{handle, device}});
  }
  std::unique_ptr<RegionMemory> MustOpen(const std::string& handle, uint64_t size_bytes) {
    OpenedRegion opened = Open(handle, size_bytes);
    if (const auto* refusal = std::get_if<RegionRefusal>(&opened)) {
      ADD_FAILURE() << "fault " << static_cast<int>(refusal->fault);
      return nullptr;
    }
    return std::move(std::get<std::unique_ptr<RegionMemory>>(opened));
  }
  std::optional<RegionFault> FaultOf(const OpenedRegion& opened) {
    const auto* refusal = std::get_if<RegionRefusal>(&opened);
    return refusal == nullptr ? std::nullopt : std::make_optional(refusal->fault);
  }

  Execution Run(const Batch& batch) {
    Execution outcome;
    auto done = std::make_shared<absl::Notification>();
    executor_->Run(batch, [&outcome, done](const Execution& execution) {
      outcome = execution;
      done->Notify();
    });
    done->WaitForNotification();
    return outcome;
  }

  // Whether the device still computes.
  void ExpectAlive() {
    absl::StatusOr<Slab> slab = executor_->slab_pool().Acquire(3 * kSlabAlignment);
    ASSERT_TRUE(slab.ok());
    Batch batch{&GetModel(Op::kForward, Dtype::kFp32), {}};
    batch.segments.emplace_back();
    batch.segments[0].inputs = {slab->data.get(), slab->data.get() + kSlabAlignment};
    batch.segments[0].outputs = {slab->data.get() + 2 * kSlabAlignment};
    batch.segments[0].num_elements = 4;
    EXPECT_TRUE(Run(batch).status.ok());
    EXPECT_TRUE(executor_->healthy());
  }

  std::unique_ptr<LaneExecutor> executor_;
  CudaRegionOpener opener_{{0}, ""};
};

TEST_F(CudaRegionTest, SharesTheMemoryOfAnotherProcess) {
  Peer peer(3 * kMiB);
  peer.Ask("fill 63");  // 0x3f3f, a small number of BF16
  const auto region = MustOpen(peer.handle, 3 * kMiB);
  ASSERT_NE(region, nullptr);
  EXPECT_EQ(region->device(), 0);
  EXPECT_FALSE(region->IsShrunk());
  constexpr int64_t kCount = kMiB / 2;
  Batch batch{&GetModel(Op::kBackward, Dtype::kBf16), {}};
  batch.placement = {0, true};
  Segment segment;
  for (int k = 0; k < 3; ++k) {
    segment.inputs[k] = region->data() + k * kMiB;
    segment.outputs[k] = region->data() + k * kMiB;
  }
  segment.num_elements = kCount;
  batch.segments = {segment};
  const Execution outcome = Run(batch);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.path, Path::kRegion);
  EXPECT_EQ(outcome.device, 0);
  // What the kernel gives for the same values in memory of this process.
  std::byte* d_data = nullptr;
  ASSERT_EQ(cudaMalloc(reinterpret_cast<void**>(&d_data), 3 * kMiB), cudaSuccess);
  ASSERT_EQ(cudaMemset(d_data, 63, 3 * kMiB), cudaSuccess);
  const BackwardSegment expected{
      d_data, d_data + kMiB, d_data + 2 * kMiB, d_data, d_data + kMiB, d_data + 2 * kMiB, kCount};
  ASSERT_EQ(BackwardCuda(Dtype::kBf16, {&expected, 1}, {}, nullptr), cudaSuccess);
  std::vector<char> want(3 * kMiB);
  std::vector<char> got(3 * kMiB);
  ASSERT_EQ(cudaMemcpy(want.data(), d_data, want.size(), cudaMemcpyDefault), cudaSuccess);
  ASSERT_EQ(cudaMemcpy(got.data(), region->data(), got.size(), cudaMemcpyDefault), cudaSuccess);
  EXPECT_EQ(got, want);
  EXPECT_EQ(peer.Ask("first"), std::to_string(static_cast<unsigned char>(want[0])));
  cudaFree(d_data);
}

TEST_F(CudaRegionTest, MixesDeviceAndHostMemoryInABatch) {
  Peer peer(kMiB);
  peer.Ask("fill 63");
  const auto region = MustOpen(peer.handle, kMiB);
  ASSERT_NE(region, nullptr);
  constexpr int64_t kCount = 1000;
  absl::StatusOr<Slab> slab = executor_->slab_pool().Acquire(4 * kMiB);
  ASSERT_TRUE(slab.ok());
  std::memset(slab->data.get(), 63, 4 * kMiB);
  Batch batch{&GetModel(Op::kForward, Dtype::kBf16), {}};
  batch.placement = {0, false};
  for (int i = 0; i < 2; ++i) {
    Segment segment;
    segment.inputs = {slab->data.get() + i * kMiB, region->data()};
    segment.outputs = {slab->data.get() + i * kMiB};
    segment.num_elements = kCount;
    batch.segments.push_back(segment);
  }
  batch.segments[1].outputs = {region->data() + kMiB / 2};
  ASSERT_TRUE(Run(batch).status.ok());
  std::vector<char> second(2 * kCount);
  ASSERT_EQ(cudaMemcpy(second.data(), region->data() + kMiB / 2, second.size(), cudaMemcpyDefault),
            cudaSuccess);
  EXPECT_EQ(std::memcmp(second.data(), slab->data.get(), second.size()), 0);
}

TEST_F(CudaRegionTest, TakesNoMoreThanTheAllocationHas) {
  Peer peer(2 * kMiB + 512);
  OpenedRegion opened = Open(peer.handle, uint64_t{1} << 40);
  const auto* refusal = std::get_if<RegionRefusal>(&opened);
  ASSERT_NE(refusal, nullptr);
  EXPECT_EQ(refusal->fault, RegionFault::kSize);
  EXPECT_GE(refusal->found, static_cast<int64_t>(2 * kMiB + 512));
  EXPECT_LE(refusal->found, static_cast<int64_t>(4 * kMiB));
  EXPECT_NE(MustOpen(peer.handle, 2 * kMiB + 512), nullptr);
  ExpectAlive();
}

TEST_F(CudaRegionTest, RefusesHandlesThatAreNone) {
  for (const size_t size : {0, 63, 65, 1000}) {
    EXPECT_EQ(FaultOf(Open(std::string(size, 'x'), 64)), RegionFault::kHandle) << size;
  }
  std::string handle(64, '\0');
  EXPECT_EQ(FaultOf(Open(handle, 64)), RegionFault::kHandle);
  unsigned seed = 1;
  for (int i = 0; i < 200; ++i) {
    for (char& byte : handle) byte = static_cast<char>(::rand_r(&seed));
    EXPECT_EQ(FaultOf(Open(handle, 64)), RegionFault::kHandle);
  }
  ExpectAlive();
}

TEST_F(CudaRegionTest, RefusesHandlesWithAChangedByte) {
  Peer peer(kMiB);
  for (size_t i = 0; i < 64; ++i) {
    std::string handle = peer.handle;
    handle[i] = static_cast<char>(handle[i] ^ 0x41);
    const OpenedRegion opened = Open(handle, 64);  // some bytes say nothing
    const auto fault = FaultOf(opened);
    EXPECT_TRUE(!fault.has_value() || fault == RegionFault::kHandle || fault == RegionFault::kSize)
        << i;
  }
  ExpectAlive();
}

TEST_F(CudaRegionTest, RefusesItsOwnHandle) {
  std::byte* d_data = nullptr;
  ASSERT_EQ(cudaMalloc(reinterpret_cast<void**>(&d_data), kMiB), cudaSuccess);
  cudaIpcMemHandle_t handle;
  ASSERT_EQ(cudaIpcGetMemHandle(&handle, d_data), cudaSuccess);
  EXPECT_EQ(FaultOf(Open(std::string(handle.reserved, sizeof(handle)), 64)), RegionFault::kHandle);
  cudaFree(d_data);
  ExpectAlive();
}

TEST_F(CudaRegionTest, RefusesDevicesThatItDoesNotUse) {
  Peer peer(kMiB);
  for (const int64_t device : {int64_t{-1}, int64_t{1}, int64_t{99}, int64_t{1} << 40}) {
    EXPECT_EQ(FaultOf(Open(peer.handle, 64, device)), RegionFault::kDevice) << device;
  }
}

TEST_F(CudaRegionTest, RefusesTheHandleOfAProcessThatHasEnded) {
  Peer peer(kMiB);
  const std::string handle = peer.handle;
  peer.Kill();
  EXPECT_EQ(FaultOf(Open(handle, 64)), RegionFault::kHandle);
  ExpectAlive();
}

TEST_F(CudaRegionTest, OpensAHandleTwice) {
  Peer peer(kMiB);
  auto first = MustOpen(peer.handle, kMiB);
  const auto second = MustOpen(peer.handle, kMiB / 2);
  ASSERT_TRUE(first != nullptr && second != nullptr);
  first.reset();
  peer.Ask("fill 7");
  char byte = 0;
  ASSERT_EQ(cudaMemcpy(&byte, second->data(), 1, cudaMemcpyDefault), cudaSuccess);
  EXPECT_EQ(byte, 7);
}

// CUDA leaves these two undefined. This says what the driver of the machine does.
TEST_F(CudaRegionTest, OutlivesAnOwnerThatFrees) {
  Peer peer(kMiB);
  const auto region = MustOpen(peer.handle, kMiB);
  ASSERT_NE(region, nullptr);
  peer.Ask("free");
  char byte = 0;
  std::printf("after a free in the owner: %s\n",
              cudaGetErrorName(cudaMemcpy(&byte, region->data(), 1, cudaMemcpyDefault)));
  ExpectAlive();
}

TEST_F(CudaRegionTest, OutlivesAnOwnerThatIsKilled) {
  Peer peer(64 * kMiB);
  const auto region = MustOpen(peer.handle, 64 * kMiB);
  ASSERT_NE(region, nullptr);
  peer.Kill();
  Batch batch{&GetModel(Op::kForward, Dtype::kFp32), {}};
  batch.placement = {0, true};
  Segment segment;
  segment.inputs = {region->data(), region->data() + 16 * kMiB};
  segment.outputs = {region->data() + 32 * kMiB};
  segment.num_elements = 4 * kMiB;
  batch.segments = {segment};
  std::printf("a batch after the owner was killed: %s\n", Run(batch).status.ToString().c_str());
  ExpectAlive();
}

TEST_F(CudaRegionTest, GivesDeviceMemoryBack) {
  size_t before = 0;
  size_t after = 0;
  size_t total = 0;
  ASSERT_EQ(cudaMemGetInfo(&before, &total), cudaSuccess);
  for (int i = 0; i < 20; ++i) {
    Peer peer(64 * kMiB);
    EXPECT_NE(MustOpen(peer.handle, 64 * kMiB), nullptr);
  }
  ASSERT_EQ(cudaMemGetInfo(&after, &total), cudaSuccess);
  EXPECT_LT(before, after + 64 * kMiB);
}

TEST_F(CudaRegionTest, PinsAFileOfAClient) {
  const std::string key = absl::StrCat("swiglu_cuda_region_test_", ::getpid());
  const std::string path = "/dev/shm/" + key;
  const Descriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  ASSERT_EQ(::ftruncate(file.get(), 8 * kMiB), 0);
  OpenedRegion opened = opener_.Open({8 * kMiB, SystemRegionSource{key}});
  ::unlink(path.c_str());
  ASSERT_TRUE(std::holds_alternative<std::unique_ptr<RegionMemory>>(opened));
  const auto region = std::move(std::get<std::unique_ptr<RegionMemory>>(opened));
  EXPECT_EQ(region->device(), kCpuDevice);
  cudaPointerAttributes attributes = {};
  ASSERT_EQ(cudaPointerGetAttributes(&attributes, region->data()), cudaSuccess);
  EXPECT_EQ(attributes.type, cudaMemoryTypeHost);
  Batch batch{&GetModel(Op::kForward, Dtype::kFp32), {}};
  Segment segment;
  segment.inputs = {region->data(), region->data() + 2 * kMiB};
  segment.outputs = {region->data() + 4 * kMiB};
  segment.num_elements = kMiB / 2;
  batch.segments = {segment};
  std::memset(region->data(), 63, 4 * kMiB);
  EXPECT_TRUE(Run(batch).status.ok());
  // Pinned pages stay when the file gets shorter.
  ASSERT_EQ(::ftruncate(file.get(), 0), 0);
  EXPECT_TRUE(region->IsShrunk());
  EXPECT_TRUE(Run(batch).status.ok());
  ExpectAlive();
}

}  // namespace
}  // namespace swiglu::server
