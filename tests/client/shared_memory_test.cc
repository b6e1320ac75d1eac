// SPDX-License-Identifier: Apache-2.0
//
// Regions of system shared memory: made, registered, used as tensors, and gone without a trace.
#include "swiglu/shared_memory.h"

#include <dirent.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "swiglu/client.h"
#include "tests/client/bytes.h"
#include "tests/client/client_fixture.h"
#include "tests/client/fake_regions.h"
#include "tests/client/fake_server.h"

namespace swiglu::client {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// What the files of this test begin with.
std::string Prefix() { return absl::StrCat("swiglu-test-", getpid(), "-"); }

std::vector<std::string> FilesOfThisTest() {
  std::vector<std::string> names;
  DIR* const folder = opendir("/dev/shm");
  while (const dirent* const entry = readdir(folder)) {
    if (absl::StartsWith(entry->d_name, Prefix())) names.push_back(entry->d_name);
  }
  closedir(folder);
  return names;
}

// Mappings of files of this test in this process, those of the fake server included.
int64_t NumMappings() {
  std::ifstream maps("/proc/self/maps");
  int64_t num_mappings = 0;
  for (std::string line; std::getline(maps, line);) {
    if (absl::StrContains(line, Prefix())) ++num_mappings;
  }
  return num_mappings;
}

class SharedMemoryTest : public ::testing::Test {
 protected:
  SystemRegion Create(int64_t size_bytes, SystemRegionOptions options = {}) {
    options.file_prefix = Prefix();
    auto region = SystemRegion::Create(*client_, size_bytes, options);
    EXPECT_TRUE(region.ok()) << region.status();
    return *std::move(region);
  }

  // The error of a region that cannot be made, after which nothing is left.
  absl::Status CreateError(int64_t size_bytes, SystemRegionOptions options = {}) {
    if (options.file_prefix.find('/') == std::string::npos) options.file_prefix += Prefix();
    const absl::Status status = SystemRegion::Create(*client_, size_bytes, options).status();
    EXPECT_THAT(FilesOfThisTest(), IsEmpty());
    EXPECT_EQ(NumMappings(), 0);
    return status;
  }

  // Writes a tensor into a region.
  static void Fill(SystemRegion& region, int64_t offset, const std::string& text) {
    std::memcpy(region.bytes().data() + offset, text.data(), text.size());
  }
  static std::string Text(const SystemRegion& region, int64_t offset, size_t size) {
    return AsText(region.bytes().subspan(static_cast<size_t>(offset), size));
  }

  FakeRegions regions_;
  std::optional<FakeReply> refusal_;  // of the next registration
  absl::Time deadline_;               // of the last call
  FakeServer server_{[this](const FakeCall& call) {
    deadline_ = call.deadline;
    if (refusal_ && call.method == "SystemSharedMemoryRegister") return *refusal_;
    return regions_.Answer(call);
  }};
  const std::unique_ptr<Client> client_ =
      Connect(server_.address(), {.num_connections = 2, .max_message_bytes = 4096});

  // Tensors of 12 elements.
  const std::string dw_ = Pattern(24, 1), e_ = Pattern(24, 2), g_ = Pattern(24, 3);
  const Shape shape_ = {3, 4};
};

TEST_F(SharedMemoryTest, RegionIsRegisteredAndItsFileHasNoName) {
  {
    const SystemRegion region = Create(5000);
    EXPECT_EQ(region.size_bytes(), 5000);
    EXPECT_EQ(region.bytes().size(), 5000u);
    EXPECT_THAT(region.bytes(), ::testing::Each(std::byte{0}));
    EXPECT_TRUE(absl::StartsWith(region.name(), Prefix())) << region.name();
    EXPECT_EQ(region.name().size(), Prefix().size() + 32);
    EXPECT_EQ(regions_.regions().at(region.name()).size(), 5000u);
    EXPECT_EQ(regions_.last_mode(), 0600u);
    EXPECT_THAT(FilesOfThisTest(), IsEmpty());
    EXPECT_EQ(NumMappings(), 2);
  }
  EXPECT_THAT(regions_.regions(), IsEmpty());
  EXPECT_EQ(NumMappings(), 0);
}

TEST_F(SharedMemoryTest, NamesDiffer) {
  const SystemRegion a = Create(1), b = Create(1);
  EXPECT_NE(a.name(), b.name());
  EXPECT_EQ(regions_.regions().size(), 2u);
}

TEST_F(SharedMemoryTest, OptionsGiveNameAndMode) {
  const mode_t umask_before = umask(077);
  const SystemRegion region = Create(1, {.name = "mine", .mode = 0660});
  umask(umask_before);
  EXPECT_EQ(region.name(), "mine");
  EXPECT_EQ(regions_.regions().count("mine"), 1u);
  EXPECT_EQ(regions_.last_mode(), 0660u);
}

TEST_F(SharedMemoryTest, MovedRegionIsUnregisteredOnce) {
  {
    SystemRegion a = Create(1);
    Fill(a, 0, "x");
    SystemRegion b = std::move(a);
    EXPECT_EQ(Text(b, 0, 1), "x");
    b = Create(2);
    EXPECT_EQ(regions_.regions().size(), 1u);
    EXPECT_EQ(b.size_bytes(), 2);
  }
  EXPECT_THAT(regions_.methods(),
              ElementsAre("SystemSharedMemoryRegister", "SystemSharedMemoryRegister",
                          "SystemSharedMemoryUnregister", "SystemSharedMemoryUnregister"));
}

TEST_F(SharedMemoryTest, ARegionKeepsTheConnectionsOfItsClient) {
  auto client = Connect(server_.address());
  std::optional<SystemRegion> region =
      SystemRegion::Create(*client, 24, {.file_prefix = Prefix()}).value();
  client.reset();
  EXPECT_EQ(regions_.regions().count(region->name()), 1u);
  region.reset();
  EXPECT_THAT(regions_.regions(), IsEmpty());
}

TEST_F(SharedMemoryTest, RefusalComesBackUnchangedAndLeavesNothing) {
  refusal_ = Refusal(grpc::StatusCode::UNIMPLEMENTED, "this server takes no shared memory");
  EXPECT_EQ(Unnamed(CreateError(1 << 20)),
            absl::UnimplementedError("this server takes no shared memory"));
  EXPECT_THAT(regions_.methods(), IsEmpty());
  refusal_.reset();
  const SystemRegion region = Create(1, {.name = "mine"});
  auto twice = SystemRegion::Create(*client_, 1, {.name = "mine"});
  EXPECT_EQ(Unnamed(twice.status()),
            absl::AlreadyExistsError("region 'mine' is registered already"));
  EXPECT_EQ(regions_.regions().count("mine"), 1u);
}

TEST_F(SharedMemoryTest, RegionThatDoesNotFitIsAnErrorNow) {
  const absl::Status status = CreateError(int64_t{1} << 50);
  EXPECT_EQ(status, absl::ResourceExhaustedError("cannot reserve 1125899906842624 bytes of shared "
                                                 "memory: No space left on device"));
  EXPECT_THAT(regions_.methods(), IsEmpty());
}

TEST_F(SharedMemoryTest, PagesAreThereBeforeTheyAreWritten) {
  std::string pages;
  refusal_ = Refusal(grpc::StatusCode::UNIMPLEMENTED, "no");
  FakeServer server([&](const FakeCall& call) {
    inference::SystemSharedMemoryRegisterRequest request;
    request.ParseFromString(call.message);
    struct stat status = {};
    EXPECT_EQ(stat(absl::StrCat("/dev/shm", request.key()).c_str(), &status), 0);
    EXPECT_GE(status.st_blocks * 512, 1 << 20);
    return *refusal_;
  });
  EXPECT_FALSE(SystemRegion::Create(*Connect(server.address()), 1 << 20).ok());
}

TEST_F(SharedMemoryTest, BadArgumentsAreRefusedHere) {
  EXPECT_EQ(CreateError(0), absl::InvalidArgumentError("a region has 1 byte or more, not 0"));
  EXPECT_EQ(CreateError(-1), absl::InvalidArgumentError("a region has 1 byte or more, not -1"));
  const absl::Status bad =
      absl::InvalidArgumentError("option file_prefix has no '/' and at most 200 bytes");
  EXPECT_EQ(CreateError(1, {.file_prefix = "../x"}), bad);
  EXPECT_EQ(CreateError(1, {.file_prefix = std::string(201, 'x')}), bad);
  EXPECT_THAT(regions_.methods(), IsEmpty());
}

// The server may have registered it after all.
TEST_F(SharedMemoryTest, UnansweredRegistrationIsTakenBack) {
  refusal_.emplace().never = true;
  EXPECT_EQ(CreateError(1, {.timeout = absl::Milliseconds(200)}).code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(regions_.methods(), ElementsAre("SystemSharedMemoryUnregister"));
  // With a name that was chosen, it may be another client's.
  EXPECT_EQ(CreateError(1, {.name = "mine", .timeout = absl::Milliseconds(200)}).code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(regions_.methods(), ElementsAre("SystemSharedMemoryUnregister"));
}

TEST_F(SharedMemoryTest, LargeRegionHasMoreTimeToRegister) {
  const absl::Time start = absl::Now();
  const SystemRegion region = Create(200'000'000);
  EXPECT_GE(deadline_ - start, absl::Seconds(31.9));
  EXPECT_LE(deadline_ - start, absl::Seconds(40));
}

TEST_F(SharedMemoryTest, TensorsInRegionsDoNotTravel) {
  SystemRegion region = Create(96);
  Fill(region, 24, e_);
  Fill(region, 48, g_);
  const absl::Status status =
      client_->ForwardInto({Dtype::kFp16, shape_, region.Part(24, 24)},
                           {Dtype::kFp16, shape_, region.Part(48, 24)}, region.Part(0, 24));
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(Text(region, 0, 24), e_);
  const inference::ModelInferRequest request = regions_.last_infer();
  EXPECT_EQ(request.raw_input_contents_size(), 0);
  EXPECT_EQ(request.inputs(0).parameters_size(), 3);
  const auto& parameters = request.inputs(1).parameters();
  EXPECT_EQ(parameters.at("shared_memory_region").string_param(), region.name());
  EXPECT_EQ(parameters.at("shared_memory_offset").int64_param(), 48);
  EXPECT_EQ(parameters.at("shared_memory_byte_size").int64_param(), 24);
  ASSERT_EQ(request.outputs_size(), 1);
  EXPECT_EQ(request.outputs(0).name(), "h");
  EXPECT_EQ(request.outputs(0).parameters().at("shared_memory_byte_size").int64_param(), 24);
}

TEST_F(SharedMemoryTest, MemoryAndRegionsMix) {
  SystemRegion a = Create(24), b = Create(48);
  Fill(b, 24, e_);
  std::string h(24, '?'), de(24, '?');
  const TensorView dw{Dtype::kFp16, shape_, AsBytes(dw_)}, g{Dtype::kFp16, shape_, AsBytes(g_)};
  const absl::Status status = client_->BackwardInto(
      dw, {Dtype::kFp16, shape_, b.Part(24, 24)}, g,
      {.h = AsWritableBytes(h), .df = a.Part(0, 24), .de = AsWritableBytes(de)});
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(h, dw_);
  EXPECT_EQ(Text(a, 0, 24), e_);
  EXPECT_EQ(de, g_);
  const inference::ModelInferRequest last = regions_.last_infer();
  EXPECT_THAT(last.raw_input_contents(), ElementsAre(dw_, g_));
  ASSERT_EQ(last.outputs_size(), 3);
  EXPECT_EQ(last.outputs(0).parameters_size(), 0);
  // From memory into a region.
  EXPECT_TRUE(client_->ForwardInto(dw, g, b.Part(0, 24)).ok());
  EXPECT_EQ(Text(b, 0, 24), dw_);
}

TEST_F(SharedMemoryTest, OutputsMayBeTheInputs) {
  SystemRegion region = Create(72);
  Fill(region, 0, dw_);
  Fill(region, 24, e_);
  Fill(region, 48, g_);
  const auto input = [&](int64_t k) {
    return InputTensor(Dtype::kFp16, shape_, region.Part(24 * k, 24));
  };
  const absl::Status status = client_->BackwardInto(
      input(0), input(1), input(2),
      {.h = region.Part(0, 24), .df = region.Part(24, 24), .de = region.Part(48, 24)});
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(Text(region, 0, 72), dw_ + e_ + g_);
}

// The client's largest message has 4096 bytes.
TEST_F(SharedMemoryTest, LargeTensorsInRegionsAreOneMessage) {
  SystemRegion region = Create(300'000);
  const std::string e = Pattern(100'000, 5);
  Fill(region, 100'000, e);
  const auto input = [&](int64_t offset) {
    return InputTensor(Dtype::kFp16, {50'000}, region.Part(offset, 100'000));
  };
  CallOptions options;
  options.on_chunk = [](int64_t, int64_t) { ADD_FAILURE() << "in chunks"; };
  ASSERT_TRUE(
      client_->ForwardInto(input(100'000), input(200'000), region.Part(0, 100'000), options).ok());
  EXPECT_EQ(Text(region, 0, 100'000), e);
  EXPECT_THAT(regions_.methods(), ElementsAre("SystemSharedMemoryRegister", "ModelInfer"));
}

TEST_F(SharedMemoryTest, RegionIsSplitAsTheMemoryBesideIt) {
  SystemRegion region = Create(60'008);
  const std::string e = Pattern(30'000, 5), g = Pattern(30'000, 6);
  Fill(region, 8, e);
  const TensorView g_view{Dtype::kFp16, {15'000}, AsBytes(g)};
  std::atomic<int64_t> num_done{0};  // several threads report
  CallOptions options;
  options.on_chunk = [&](int64_t, int64_t num_chunks) {
    ++num_done;
    EXPECT_GE(num_chunks, 30'000 / 4096 + 1);
    EXPECT_LE(num_chunks, 30'000 / 3000 + 1);
  };
  const absl::Status status = client_->ForwardInto({Dtype::kFp16, {15'000}, region.Part(8, 30'000)},
                                                   g_view, region.Part(30'008, 30'000), options);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(Text(region, 30'008, 30'000), e);
  EXPECT_EQ(regions_.methods().size(), static_cast<size_t>(num_done.load()) + 1);
  // From a region into memory, in place of the other input.
  std::string h = g;
  ASSERT_TRUE(client_
                  ->ForwardInto(g_view, {Dtype::kFp16, {15'000}, region.Part(8, 30'000)},
                                AsWritableBytes(h))
                  .ok());
  EXPECT_EQ(h, g);
}

TEST_F(SharedMemoryTest, BytesInRegionsCountForTheTime) {
  const SystemRegion region = Create(200'000'000);
  const InputTensor half(Dtype::kFp16, {50'000'000}, region.Part(0, 100'000'000));
  const absl::Time start = absl::Now();
  ASSERT_TRUE(client_->ForwardInto(half, half, region.Part(100'000'000, 100'000'000)).ok());
  EXPECT_GE(deadline_ - start, absl::Seconds(31.9));
  EXPECT_LE(deadline_ - start, absl::Seconds(40));
}

TEST_F(SharedMemoryTest, PartThatIsNotInsideIsRefusedHere) {
  const SystemRegion region = Create(48);
  const InputTensor good(Dtype::kFp16, shape_, region.Part(0, 24));
  const int64_t most = std::numeric_limits<int64_t>::max();
  for (const int64_t offset : {int64_t{-1}, int64_t{25}, int64_t{48}, most, -most}) {
    const std::string where = absl::StrCat("is not inside region '", region.name(),
                                           "': 24 bytes at offset ", offset, " of 48");
    const InputTensor bad(Dtype::kFp16, shape_, region.Part(offset, 24));
    EXPECT_EQ(client_->ForwardInto(good, bad, region.Part(24, 24)),
              absl::InvalidArgumentError(absl::StrCat("'g' ", where)));
    EXPECT_EQ(client_->ForwardInto(good, good, region.Part(offset, 24)),
              absl::InvalidArgumentError(absl::StrCat("'h' ", where)));
  }
  EXPECT_EQ(
      client_->ForwardInto(good, {Dtype::kFp16, shape_, region.Part(0, 22)}, good.part.value()),
      absl::InvalidArgumentError("input 'g' has 22 bytes; shape [3,4] of FP16 needs 24"));
  EXPECT_EQ(client_->ForwardInto(good, good, region.Part(0, 26)),
            absl::InvalidArgumentError("output 'h' has 26 bytes; the inputs have 24"));
  EXPECT_THAT(regions_.methods(), ElementsAre("SystemSharedMemoryRegister"));
}

TEST_F(SharedMemoryTest, TensorWithoutElementsNeedsNoRegion) {
  const SystemRegion region = Create(1);
  const InputTensor none(Dtype::kFp16, {0, 4}, region.Part(0, 0));
  EXPECT_TRUE(client_->ForwardInto(none, none, region.Part(1, 0)).ok());
  EXPECT_EQ(regions_.last_infer().inputs(0).parameters_size(), 0);
  EXPECT_EQ(regions_.last_infer().raw_input_contents_size(), 2);
}

TEST_F(SharedMemoryTest, OutputOfARegionInTheAnswerIsInternal) {
  const SystemRegion region = Create(48);
  FakeServer liar([](const FakeCall& call) {
    inference::ModelInferRequest request;
    request.ParseFromString(call.message);
    return EchoInfer(call);
  });
  const TensorView e{Dtype::kFp16, shape_, AsBytes(e_)};
  EXPECT_EQ(Unnamed(Connect(liar.address())->ForwardInto(e, e, region.Part(0, 24))),
            absl::InternalError("bad response of 'swiglu_forward_fp16': output 'h' has 24 bytes; "
                                "it belongs into a region"));
}

TEST_F(SharedMemoryTest, ListsAndUnregisters) {
  const SystemRegion b = Create(2, {.name = "b"}), a = Create(1, {.name = "a"});
  auto listed = client_->ListRegions(RegionKind::kSystem);
  ASSERT_TRUE(listed.ok()) << listed.status();
  ASSERT_EQ(listed->size(), 2u);
  EXPECT_EQ((*listed)[0].name, "a");
  EXPECT_EQ((*listed)[1].size_bytes, 2);
  EXPECT_EQ((*listed)[1].device, -1);
  EXPECT_TRUE(absl::IsUnimplemented(client_->ListRegions(RegionKind::kCuda).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(client_->UnregisterRegion(RegionKind::kSystem, "")));
  EXPECT_TRUE(client_->UnregisterRegion(RegionKind::kSystem, "a").ok());
  EXPECT_EQ(regions_.regions().size(), 1u);
  EXPECT_TRUE(client_->UnregisterAllRegions(RegionKind::kSystem).ok());
  EXPECT_THAT(regions_.regions(), IsEmpty());
}

}  // namespace
}  // namespace swiglu::client
