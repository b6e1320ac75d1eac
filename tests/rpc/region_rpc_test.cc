// SPDX-License-Identifier: Apache-2.0
//
// Tensors in system regions, through the whole server over the CPU executor: values, every rule of
// the protocol, and what happens to a region while requests use it.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"
#include "server/device/cpu_executor.h"
#include "server/device/shared_file.h"
#include "swiglu/cpu.h"
#include "tests/byte_units.h"
#include "tests/rpc/server_fixture.h"

namespace swiglu::server {
namespace {

using inference::ModelInferRequest;

// A file in /dev/shm that a client shares.
class ClientFile {
 public:
  // Its bytes are set, or it is one hole that takes no memory.
  explicit ClientFile(int64_t size_bytes, bool is_filled = true)
      : key(absl::StrCat("swiglu_rpc_test_", ::getpid(), "_", next_++)), size_bytes_(size_bytes) {
    const std::string path = "/dev/shm/" + key;
    fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    EXPECT_EQ(::ftruncate(fd_, size_bytes), 0);
    data = static_cast<std::byte*>(
        ::mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0));
    EXPECT_NE(data, MAP_FAILED);
    for (int64_t i = 0; is_filled && i < size_bytes; ++i)
      data[i] = static_cast<std::byte>(i * 31 % 97);
  }
  ~ClientFile() {
    ::munmap(data, size_bytes_);
    ::close(fd_);
    ::unlink(("/dev/shm/" + key).c_str());
  }
  void Resize(int64_t size_bytes) const { ASSERT_EQ(::ftruncate(fd_, size_bytes), 0); }
  // A copy of the bytes now.
  std::vector<std::byte> Bytes(int64_t offset, int64_t size) const {
    return std::vector<std::byte>(data + offset, data + offset + size);
  }

  const std::string key;
  std::byte* data = nullptr;

 private:
  static inline int next_ = 0;
  const int64_t size_bytes_;
  int fd_ = -1;
};

// Puts `tensor` into a region.
template <typename Tensor>
void Place(Tensor* tensor, const std::string& region, int64_t size_bytes, int64_t offset) {
  auto& parameters = *tensor->mutable_parameters();
  parameters["shared_memory_region"].set_string_param(region);
  parameters["shared_memory_byte_size"].set_int64_param(size_bytes);
  parameters.erase("shared_memory_offset");
  if (offset != 0) parameters["shared_memory_offset"].set_int64_param(offset);
}

inference::ModelInferRequest::InferRequestedOutputTensor* AddOutput(const std::string& name,
                                                                    ModelInferRequest& request) {
  auto* output = request.add_outputs();
  output->set_name(name);
  return output;
}

// The CPU executor, with something to do before each batch.
class HookedExecutor final : public Executor {
 public:
  int num_lanes() const override { return cpu_->num_lanes(); }
  int max_segments() const override { return cpu_->max_segments(); }
  int64_t max_batch_bytes() const override { return cpu_->max_batch_bytes(); }
  bool TakesReaders() const override { return true; }
  void Run(const Batch& batch, Done done) override {
    before_run();
    cpu_->Run(batch, std::move(done));
  }
  bool healthy() const override { return true; }
  SlabPool& slab_pool() override { return cpu_->slab_pool(); }
  std::string description() const override { return cpu_->description(); }

  std::function<void()> before_run = [] {};

 private:
  std::unique_ptr<CpuExecutor> cpu_ = *CpuExecutor::Create({2, {.capacity_bytes = 64 << 20}});
};

// Opens the files of clients, and holds each one until it may.
class HookedOpener final : public RegionOpener {
 public:
  bool Supports(RegionKind kind) const override { return opener_.Supports(kind); }
  OpenedRegion Open(const RegionSpec& spec) override {
    before_open();
    return opener_.Open(spec);
  }

  std::function<void()> before_open = [] {};

 private:
  HostRegionOpener opener_{""};
};

class RegionRpcTest : public testing::Test {
 protected:
  ~RegionRpcTest() override { EXPECT_TRUE(server_.AwaitIdle()); }

  grpc::Status Register(const std::string& name, const std::string& key, uint64_t size_bytes,
                        uint64_t offset = 0) {
    inference::SystemSharedMemoryRegisterRequest request;
    request.set_name(name);
    request.set_key(key);
    request.set_byte_size(size_bytes);
    request.set_offset(offset);
    inference::SystemSharedMemoryRegisterResponse response;
    PatientContext context;
    return server_.stub->SystemSharedMemoryRegister(&context, request, &response);
  }
  void Unregister(const std::string& name) {
    inference::SystemSharedMemoryUnregisterRequest request;
    request.set_name(name);
    inference::SystemSharedMemoryUnregisterResponse response;
    PatientContext context;
    EXPECT_TRUE(server_.stub->SystemSharedMemoryUnregister(&context, request, &response).ok());
  }

  // A forward request of `n` FP16 elements: e at 0, g behind it, h behind that, of region r.
  static ModelInferRequest ForwardRequest(int64_t n) {
    ModelInferRequest request;
    request.set_model_name(kForwardFp16);
    AddInput("e", "FP16", {n}, &request);
    AddInput("g", "FP16", {n}, &request);
    Place(request.mutable_inputs(0), "r", 2 * n, 0);
    Place(request.mutable_inputs(1), "r", 2 * n, 2 * n);
    Place(AddOutput("h", request), "r", 2 * n, 4 * n);
    return request;
  }
  static std::vector<std::byte> ForwardOf(const ClientFile& file, int64_t n, int64_t e, int64_t g) {
    std::vector<std::byte> h(2 * n);
    const ForwardSegment segment{file.data + e, file.data + g, h.data(), n};
    EXPECT_EQ(ForwardCpu(Dtype::kFp16, {&segment, 1}), KernelStatus::kOk);
    return h;
  }

  static TestServerOptions WithRegions(RegionOpener* opener) {
    TestServerOptions options;
    options.regions.enabled = {true, false};
    options.region_opener = opener;
    options.other_models = {
        MakeMlpModel({.op = Op::kMlpBackward, .mlp = "m", .hidden = 8, .intermediate = 4})};
    return options;
  }

  HookedExecutor executor_;
  HookedOpener opener_;
  TestServer server_{&executor_, WithRegions(&opener_)};
};

TEST_F(RegionRpcTest, ReadsAndWritesRegions) {
  for (const int64_t n : {int64_t{1}, int64_t{1000}, 3 * kMiB + 5}) {
    SCOPED_TRACE(n);
    const ClientFile file(6 * n);
    ASSERT_TRUE(Register("r", file.key, 6 * n).ok());
    const std::vector<std::byte> expected = ForwardOf(file, n, 0, 2 * n);
    const auto result = Infer(server_, ForwardRequest(n));
    ASSERT_TRUE(result.status.ok()) << result.status.error_message();
    ASSERT_EQ(result.response.raw_output_contents_size(), 1);
    EXPECT_EQ(result.response.raw_output_contents(0), "");
    EXPECT_EQ(result.response.outputs(0).shape(0), n);
    EXPECT_TRUE(file.Bytes(4 * n, 2 * n) == expected);
    Unregister("r");
  }
}

TEST_F(RegionRpcTest, MixesRegionsAndMessages) {
  constexpr int64_t kCount = 700'000;  // of which a request has several chunks
  constexpr int64_t kBytes = 2 * kCount;
  const ClientFile file(3 * kBytes);
  ASSERT_TRUE(Register("r", file.key, 3 * kBytes).ok());
  const std::vector<std::byte> expected = ForwardOf(file, kCount, 0, kBytes);
  const std::string e(reinterpret_cast<const char*>(file.data), kBytes);
  const std::string g(reinterpret_cast<const char*>(file.data) + kBytes, kBytes);
  for (int mask = 0; mask < 8; ++mask) {
    SCOPED_TRACE(mask);
    std::memset(file.data + 2 * kBytes, 0, kBytes);
    ModelInferRequest request = GoodRequest(kForwardFp16, {kCount});
    request.clear_raw_input_contents();
    (mask & 1) != 0 ? Place(request.mutable_inputs(0), "r", kBytes, 0)
                    : request.add_raw_input_contents(e);
    (mask & 2) != 0 ? Place(request.mutable_inputs(1), "r", kBytes, kBytes)
                    : request.add_raw_input_contents(g);
    if ((mask & 4) != 0) Place(AddOutput("h", request), "r", kBytes, 2 * kBytes);
    const auto result = Infer(server_, request);
    ASSERT_TRUE(result.status.ok()) << result.status.error_message();
    const std::string& raw = result.response.raw_output_contents(0);
    const auto* h =
        (mask & 4) != 0 ? file.data + 2 * kBytes : reinterpret_cast<const std::byte*>(raw.data());
    ASSERT_EQ(raw.size(), (mask & 4) != 0 ? 0u : static_cast<size_t>(kBytes));
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), h));
  }
}

TEST_F(RegionRpcTest, ComputesBackwardInPlace) {
  constexpr int64_t kCount = 500'000;
  constexpr int64_t kBytes = 2 * kCount;
  const ClientFile file(3 * kBytes);
  ASSERT_TRUE(Register("r", file.key, 3 * kBytes).ok());
  std::vector<std::byte> expected(3 * kBytes);
  const BackwardSegment segment{
      file.data,       file.data + kBytes,       file.data + 2 * kBytes,
      expected.data(), expected.data() + kBytes, expected.data() + 2 * kBytes,
      kCount};
  ASSERT_EQ(BackwardCpu(Dtype::kBf16, {&segment, 1}), KernelStatus::kOk);
  ModelInferRequest request = GoodRequest(kBackwardBf16, {kCount});
  request.clear_raw_input_contents();
  const char* outputs[] = {"h", "df", "de"};
  for (int k = 0; k < 3; ++k) {
    Place(request.mutable_inputs(k), "r", kBytes, k * kBytes);
    Place(AddOutput(outputs[k], request), "r", kBytes, k * kBytes);
  }
  const auto result = Infer(server_, request);
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  EXPECT_TRUE(file.Bytes(0, 3 * kBytes) == expected);
}

TEST_F(RegionRpcTest, LeavesInputsAloneWhoseOutputsAreNotAskedFor) {
  constexpr int64_t kCount = 1000;
  const ClientFile file(6 * kCount);
  ASSERT_TRUE(Register("r", file.key, 6 * kCount).ok());
  const std::vector<std::byte> before = file.Bytes(0, 6 * kCount);
  ModelInferRequest request = GoodRequest(kBackwardBf16, {kCount});
  request.clear_raw_input_contents();
  for (int k = 0; k < 3; ++k) Place(request.mutable_inputs(k), "r", 2 * kCount, k * 2 * kCount);
  AddOutput("de", request);
  ASSERT_TRUE(Infer(server_, request).status.ok());
  EXPECT_TRUE(file.Bytes(0, 6 * kCount) == before);
}

TEST_F(RegionRpcTest, RefusesWhatBreaksARule) {
  const ClientFile file(4096);
  ASSERT_TRUE(Register("r", file.key, 4096).ok());
  const std::vector<std::byte> before = file.Bytes(0, 4096);
  struct Case {
    std::function<void(ModelInferRequest*)> edit;
    grpc::StatusCode code;
    std::string message;
  };
  const auto invalid = grpc::StatusCode::INVALID_ARGUMENT;
  const int64_t most = std::numeric_limits<int64_t>::max();
  const std::vector<Case> cases = {
      {[](auto* r) { Place(r->mutable_inputs(0), "nope", 64, 0); }, grpc::StatusCode::NOT_FOUND,
       "unknown region 'nope'"},
      {[](auto* r) { Place(r->mutable_inputs(0), "", 64, 0); }, grpc::StatusCode::NOT_FOUND,
       "unknown region ''"},
      {[](auto* r) { Place(r->mutable_inputs(0), "r", 62, 0); }, invalid,
       "input 'e' has 62 bytes; shape [32] of FP16 needs 64"},
      {[](auto* r) { Place(r->mutable_outputs(0), "r", 32, 128); }, invalid,
       "output 'h' needs 64 bytes; its region part has 32"},
      {[](auto* r) { Place(r->mutable_inputs(0), "r", 64, 4034); }, invalid,
       "region 'r' has 4096 bytes; 'e' takes 64 from offset 4034"},
      {[](auto* r) { Place(r->mutable_inputs(0), "r", 64, 5000); }, invalid,
       "region 'r' has 4096 bytes; 'e' takes 64 from offset 5000"},
      {[=](auto* r) { Place(r->mutable_inputs(0), "r", 64, most); }, invalid,
       absl::StrCat("region 'r' has 4096 bytes; 'e' takes 64 from offset ", most)},
      {[=](auto* r) { Place(r->mutable_outputs(0), "r", most, 64); }, invalid,
       absl::StrCat("region 'r' has 4096 bytes; 'h' takes ", most, " from offset 64")},
      {[](auto* r) { Place(r->mutable_inputs(0), "r", 64, 1025); }, invalid,
       "offset 1025 of 'e' in region 'r' is no multiple of the element size 2"},
      {[](auto* r) { Place(r->mutable_outputs(0), "r", 64, 2); }, invalid,
       "output 'h' overlaps input 'e'; it may only lie exactly where the input of the same "
       "position lies"},
      {[](auto* r) { Place(r->mutable_outputs(0), "r", 64, 64); }, invalid,
       "output 'h' overlaps input 'g'; it may only lie exactly where the input of the same "
       "position lies"},
      {[](auto* r) {
         r->mutable_inputs(0)->mutable_parameters()->erase("shared_memory_byte_size");
       },
       invalid,
       "'e' lies in a shared memory region, but has no parameter 'shared_memory_byte_size'"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.message);
    ModelInferRequest request = ForwardRequest(32);
    c.edit(&request);
    const auto refused = Infer(server_, request);
    EXPECT_EQ(refused.status.error_code(), c.code);
    EXPECT_EQ(refused.status.error_message(), c.message);
  }
  EXPECT_TRUE(file.Bytes(0, 4096) == before);
  std::vector<Rejection> expected(cases.size(), Rejection::kRegion);
  expected[2] = Rejection::kInvalid;  // the sentence of any input
  EXPECT_EQ(server_.observer.AwaitRejected(static_cast<int>(cases.size())), expected);
}

TEST_F(RegionRpcTest, RefusesOutputsThatOverlap) {
  const ClientFile file(4096);
  ASSERT_TRUE(Register("r", file.key, 4096).ok());
  ModelInferRequest request = GoodRequest(kBackwardBf16, {32});
  Place(AddOutput("h", request), "r", 64, 0);
  Place(AddOutput("de", request), "r", 64, 62);
  const auto refused = Infer(server_, request);
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(refused.status.error_message(), "output 'h' overlaps output 'de'");
}

// Of a model with H = 8 and I = 4, nothing is computed: each request is refused.
TEST_F(RegionRpcTest, RefusesGradientsInBadPlaces) {
  const ClientFile file(4096);
  ASSERT_TRUE(Register("r", file.key, 4096).ok());
  const auto refusal = [this](int64_t x, int64_t gate, int64_t gate_bytes, int64_t up) {
    ModelInferRequest request = GoodRequest(*server_.models.Find("mlp_m_0_backward"), {2, 8});
    request.mutable_raw_input_contents()->RemoveLast();
    Place(request.mutable_inputs(1), "r", 32, x);  // dy
    Place(AddOutput("d_gate_proj", request), "r", gate_bytes, gate);
    Place(AddOutput("d_up_proj", request), "r", 128, up);
    const auto refused = Infer(server_, request);
    EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    return refused.status.error_message();
  };
  EXPECT_EQ(refusal(0, 64, 127, 256),
            "output 'd_gate_proj' needs 128 bytes; its region part has 127");
  EXPECT_EQ(refusal(0, 66, 128, 256),
            "offset 66 of 'd_gate_proj' in region 'r' is no multiple of the element size 4");
  EXPECT_EQ(refusal(0, 64, 128, 188), "output 'd_gate_proj' overlaps output 'd_up_proj'");
  // Beside the end of dy, which has 32 bytes, and over it.
  EXPECT_EQ(refusal(0, 28, 128, 256), "output 'd_gate_proj' overlaps input 'dy'");
  // d_gate_proj and dy have the same position.
  EXPECT_EQ(refusal(64, 64, 128, 256), "output 'd_gate_proj' overlaps input 'dy'");
}

TEST_F(RegionRpcTest, RegistersNothingThatIsNotAllowed) {
  const ClientFile file(8192);
  ASSERT_TRUE(Register("r", file.key, 8192).ok());
  struct Case {
    grpc::Status status;
    grpc::StatusCode code;
    std::string message;
  };
  const auto invalid = grpc::StatusCode::INVALID_ARGUMENT;
  const Case cases[] = {
      {Register("r", file.key, 8192), grpc::StatusCode::ALREADY_EXISTS,
       "region 'r' is registered already"},
      {Register("", file.key, 8192), invalid, "a region needs a name"},
      {Register(std::string(65000, 'n'), file.key, 8192), invalid,
       "a region's name has at most 255 bytes, not 65000"},
      {Register("s", file.key, 0), invalid, "region 's' has no bytes"},
      {Register("s", file.key, 8193), invalid, "region 's' has 8192 bytes, not 8193"},
      {Register("s", file.key, 8192, 4096), invalid, "region 's' has 4096 bytes, not 8192"},
      {Register("s", file.key, 1, 100), invalid,
       absl::StrCat("offset 100 of region 's' is no multiple of the page size ",
                    ::sysconf(_SC_PAGESIZE))},
      {Register("s", "../" + file.key, 8192), invalid, "region 's': key not allowed"},
      {Register("s", "no_such_key", 8192), invalid, "region 's': key not allowed"},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(c.status.error_code(), c.code) << c.message;
    EXPECT_EQ(c.status.error_message(), c.message);
  }
  EXPECT_EQ(server_.regions().num_regions(RegionKind::kSystem), 1);
  EXPECT_EQ(server_.regions().size_bytes(RegionKind::kSystem), 8192);
}

TEST_F(RegionRpcTest, ShowsRegionsWithoutTheirKeys) {
  const ClientFile file(3 * 4096);
  ASSERT_TRUE(Register("r", file.key, 4096, 8192).ok());
  inference::SystemSharedMemoryStatusRequest request;
  inference::SystemSharedMemoryStatusResponse response;
  {
    PatientContext context;
    ASSERT_TRUE(server_.stub->SystemSharedMemoryStatus(&context, request, &response).ok());
  }
  ASSERT_EQ(response.regions_size(), 1);
  const auto& region = response.regions().at("r");
  EXPECT_EQ(region.name(), "r");
  EXPECT_EQ(region.byte_size(), 4096u);
  EXPECT_EQ(region.offset(), 8192u);
  EXPECT_EQ(region.key(), "");
  request.set_name("s");
  PatientContext context;
  const grpc::Status status = server_.stub->SystemSharedMemoryStatus(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "unknown region 's'");
}

TEST_F(RegionRpcTest, AnswersForTheKindThatIsOff) {
  inference::CudaSharedMemoryRegisterRequest cuda;
  cuda.set_name("c");
  cuda.set_raw_handle(std::string(64, 'x'));
  cuda.set_byte_size(64);
  inference::CudaSharedMemoryRegisterResponse registered;
  PatientContext context;
  const grpc::Status status = server_.stub->CudaSharedMemoryRegister(&context, cuda, &registered);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(status.error_message(), "region 'c': this server takes no CUDA shared memory");
  inference::CudaSharedMemoryStatusResponse shown;
  PatientContext status_context;
  EXPECT_EQ(server_.stub->CudaSharedMemoryStatus(&status_context, {}, &shown).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
  // As perf_analyzer does before it uses the other kind.
  inference::CudaSharedMemoryUnregisterResponse unregistered;
  PatientContext other_context;
  EXPECT_TRUE(server_.stub->CudaSharedMemoryUnregister(&other_context, {}, &unregistered).ok());
}

TEST_F(RegionRpcTest, LosesARegionThatIsCutShortBeforeARequest) {
  const ClientFile file(6000);
  ASSERT_TRUE(Register("r", file.key, 6000).ok());
  ASSERT_TRUE(Infer(server_, ForwardRequest(1000)).status.ok());
  file.Resize(5999);
  const auto refused = Infer(server_, ForwardRequest(1000));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(refused.status.error_message(), "unknown region 'r'");
  EXPECT_TRUE(Eventually([&] { return server_.regions().size_bytes(RegionKind::kSystem) == 0; }));
}

TEST_F(RegionRpcTest, OutlivesARegionThatIsCutShortDuringARequest) {
  constexpr int64_t kCount = 2 * kMiB;
  const ClientFile file(6 * kCount);
  const ClientFile other_file(6 * kCount);
  ASSERT_TRUE(Register("r", file.key, 6 * kCount).ok());
  executor_.before_run = [&file] { file.Resize(0); };
  const auto result = Infer(server_, ForwardRequest(kCount));
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(result.status.error_message(), "region 'r' was shrunk");
  EXPECT_EQ(server_.observer.AwaitRejected(1), std::vector<Rejection>{Rejection::kRegion});
  executor_.before_run = [] {};
  EXPECT_EQ(Infer(server_, ForwardRequest(kCount)).status.error_code(),
            grpc::StatusCode::NOT_FOUND);
  EXPECT_TRUE(Infer(server_, GoodRequest(kForwardFp16, {32})).status.ok());
  Unregister("r");
  ASSERT_TRUE(Register("r", other_file.key, 6 * kCount).ok());
  EXPECT_TRUE(Infer(server_, ForwardRequest(kCount)).status.ok());
}

TEST_F(RegionRpcTest, OutlivesRegionsThatAreCutShortAtAnyTime) {
  constexpr int64_t kCount = 2 * kMiB;
  for (int round = 0; round < 10; ++round) {
    const ClientFile file(6 * kCount);
    ASSERT_TRUE(Register("r", file.key, 6 * kCount).ok());
    std::thread cutter([&file] { file.Resize(0); });
    const grpc::Status status = Infer(server_, ForwardRequest(kCount)).status;
    cutter.join();
    if (!status.ok() && status.error_code() != grpc::StatusCode::NOT_FOUND) {
      EXPECT_EQ(status.error_message(), "region 'r' was shrunk");
    }
    Unregister("r");
  }
}

TEST_F(RegionRpcTest, FinishesRequestsWhoseRegionIsUnregistered) {
  constexpr int64_t kCount = kMiB;
  constexpr int64_t kBytes = 12 * kCount;  // e, g, and an output for each caller
  const ClientFile file(kBytes);
  for (int round = 0; round < 20; ++round) {
    ASSERT_TRUE(Register("r", file.key, kBytes).ok());
    std::vector<std::thread> callers;
    for (int i = 0; i < 4; ++i) {
      callers.emplace_back([this, i] {
        ModelInferRequest request = ForwardRequest(kCount);
        Place(request.mutable_outputs(0), "r", 2 * kCount, (4 + 2 * i) * kCount);
        const grpc::Status status = Infer(server_, request).status;
        EXPECT_TRUE(status.ok() || status.error_code() == grpc::StatusCode::NOT_FOUND)
            << status.error_message();
      });
    }
    Unregister("r");
    ASSERT_TRUE(Register("r", file.key, kBytes).ok()) << "the name is free at once";
    Unregister("r");
    for (std::thread& caller : callers) caller.join();
  }
  EXPECT_TRUE(Eventually([&] { return server_.regions().size_bytes(RegionKind::kSystem) == 0; }));
}

TEST_F(RegionRpcTest, GivesEverythingBackAfterManyRegistrations) {
  const ClientFile file(4096);
  for (int i = 0; i < 2000; ++i) {
    const grpc::Status status = Register(absl::StrCat("r", i), file.key, 4096);
    EXPECT_EQ(status.ok(), i < 1024) << i;
    if (i == 1500) {
      EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
      EXPECT_EQ(status.error_message(), "1024 regions are registered; max_regions is 1024");
    }
  }
  Unregister("");
  EXPECT_EQ(server_.regions().size_bytes(RegionKind::kSystem), 0);
  EXPECT_TRUE(Register("r", file.key, 4096).ok());
}

TEST_F(RegionRpcTest, ADrainWaitsForARegistration) {
  const ClientFile file(4096);
  auto opening = std::make_shared<absl::Notification>();
  auto may_open = std::make_shared<absl::Notification>();
  opener_.before_open = [opening, may_open] {
    opening->Notify();
    may_open->WaitForNotification();
  };
  std::thread caller([&] { EXPECT_TRUE(Register("r", file.key, 4096).ok()); });
  opening->WaitForNotification();
  EXPECT_EQ(server_.active().num_in_work(), 1);
  may_open->Notify();
  caller.join();
  EXPECT_EQ(server_.active().WaitUntilNone(kPatience), 0);
}

TEST_F(RegionRpcTest, KeepsNoRegionOfACallerThatHasGoneMeanwhile) {
  TestServerOptions options = WithRegions(&opener_);
  options.io_threads = 1;  // hears of one call after the other
  TestServer server(&executor_, options);
  const ClientFile file(4096);
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
  auto opening = std::make_shared<absl::Notification>();
  auto may_open = std::make_shared<absl::Notification>();
  opener_.before_open = [opening, may_open] {
    opening->Notify();
    may_open->WaitForNotification();
  };
  std::thread caller([&] {
    inference::SystemSharedMemoryRegisterRequest request;
    request.set_name("r");
    request.set_key(file.key);
    request.set_byte_size(4096);
    inference::SystemSharedMemoryRegisterResponse response;
    EXPECT_EQ(server.stub->SystemSharedMemoryRegister(&context, request, &response).error_code(),
              grpc::StatusCode::CANCELLED);
  });
  opening->WaitForNotification();
  context.TryCancel();
  caller.join();
  // The server hears of it on the connection, which comes before a later call there.
  EXPECT_TRUE(Infer(server, GoodRequest(kForwardFp16, {32})).status.ok());
  may_open->Notify();
  EXPECT_EQ(server.active().WaitUntilNone(kPatience), 0);
  EXPECT_EQ(server.regions().num_regions(RegionKind::kSystem), 0);
  EXPECT_EQ(server.regions().size_bytes(RegionKind::kSystem), 0);
}

// Of which a small message makes the server keep much.
TEST_F(RegionRpcTest, ChargesTheChunksOfARequest) {
  TestServerOptions options = WithRegions(&opener_);
  options.admission.memory_budget_bytes = kMiB;
  TestServer server(&executor_, options);
  constexpr int64_t kCount = 300 * kMiB;  // 1,200 chunks
  const ClientFile file(4 * kCount, false);
  inference::SystemSharedMemoryRegisterRequest request;
  request.set_name("r");
  request.set_key(file.key);
  request.set_byte_size(4 * kCount);
  inference::SystemSharedMemoryRegisterResponse response;
  PatientContext context;
  ASSERT_TRUE(server.stub->SystemSharedMemoryRegister(&context, request, &response).ok());
  ModelInferRequest infer = ForwardRequest(kCount);
  Place(infer.mutable_outputs(0), "r", 2 * kCount, 0);
  const auto refused = Infer(server, infer);
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(server.AwaitIdle());
}

TEST_F(RegionRpcTest, TakesTensorsWithoutElements) {
  const ClientFile file(4096);
  ASSERT_TRUE(Register("r", file.key, 4096).ok());
  const auto result = Infer(server_, ForwardRequest(0));
  EXPECT_TRUE(result.status.ok()) << result.status.error_message();
}

}  // namespace
}  // namespace swiglu::server
