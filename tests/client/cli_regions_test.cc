// SPDX-License-Identifier: Apache-2.0
//
// `swiglu regions` against a server with one kind of shared memory, both or none.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/inference.pb.h"
#include "tests/client/cli_fixture.h"
#include "tests/client/fake_server.h"
#include "tests/client/unnamed.h"

namespace swiglu {
namespace {

using client::Answer;
using client::FakeCall;
using client::FakeReply;
using client::FakeServer;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class CliRegionsTest : public CliTest {
 protected:
  Result Regions(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"regions", "--server", server_.address()});
    unregistered_.clear();
    return Swiglu(arguments);
  }

  FakeReply Reply(const FakeCall& call) {
    const bool is_system = call.method.rfind("System", 0) == 0;
    if (is_system ? !has_system_ : !has_cuda_) {
      FakeReply off;
      off.status = grpc::Status(grpc::StatusCode::UNIMPLEMENTED,
                                absl::StrCat(call.method, ": this server takes none"));
      return off;
    }
    if (call.method == "SystemSharedMemoryStatus") {
      inference::SystemSharedMemoryStatusResponse response;
      for (const char* name : {"b", "a\x1b[2J"}) {
        auto& region = (*response.mutable_regions())[name];
        region.set_name(name);
        region.set_byte_size(4096);
      }
      return Answer(response);
    }
    if (call.method == "CudaSharedMemoryStatus") {
      inference::CudaSharedMemoryStatusResponse response;
      auto& region = (*response.mutable_regions())["c"];
      region.set_name("c");
      region.set_device_id(3);
      region.set_byte_size(uint64_t{45} << 30);
      return Answer(response);
    }
    // Unregister: both kinds have the same message.
    inference::SystemSharedMemoryUnregisterRequest request;
    request.ParseFromString(call.message);
    unregistered_.push_back(absl::StrCat(is_system ? "system " : "cuda ", request.name()));
    return Answer(inference::SystemSharedMemoryUnregisterResponse());
  }

  bool has_system_ = true, has_cuda_ = true;
  std::vector<std::string> unregistered_;
  FakeServer server_{[this](const FakeCall& call) { return Reply(call); }};
};

TEST_F(CliRegionsTest, ListsBothKindsByName) {
  const Result run = Regions({});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.out,
            "kind             bytes device  name\n"
            "system            4096      -  a\\u001b[2J\n"
            "system            4096      -  b\n"
            "cuda       48318382080      3  c\n");
}

TEST_F(CliRegionsTest, ListsOneKindAsJson) {
  EXPECT_EQ(Regions({"--json", "--kind=cuda"}).out,
            absl::StrCat("{\"server\":\"", server_.address(),
                         R"json(","regions":[{"name":"c","kind":"cuda","bytes":48318382080,)json",
                         R"json("device":3}]})json", "\n"));
}

TEST_F(CliRegionsTest, KindThatIsOffIsLeftOutUnlessItIsAskedFor) {
  has_cuda_ = false;
  const Result both = Regions({"--json"});
  EXPECT_EQ(both.code, 0) << both.err;
  EXPECT_THAT(both.out, ::testing::HasSubstr(R"({"name":"b","kind":"system","bytes":4096,)"));
  const Result cuda = Regions({"--kind=cuda"});
  EXPECT_EQ(cuda.code, 4);
  EXPECT_EQ(cuda.out, "");
  EXPECT_EQ(client::Unnamed(cuda.err),
            "swiglu: UNIMPLEMENTED: CudaSharedMemoryStatus: this server takes none\n");
  has_system_ = false;
  const Result none = Regions({});
  EXPECT_EQ(none.code, 4);
  EXPECT_EQ(client::Unnamed(none.err),
            "swiglu: UNIMPLEMENTED: SystemSharedMemoryStatus: this server takes none\n");
}

TEST_F(CliRegionsTest, UnregistersOneByName) {
  const Result run = Regions({"--unregister=c"});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.out, "");
  EXPECT_THAT(unregistered_, ElementsAre("cuda c"));
  for (const char* kind : {"--kind=both", "--kind=system"}) {
    const Result unknown =
        Regions({kind, kind == std::string("--kind=system") ? "--unregister=c" : "--unregister=d"});
    EXPECT_EQ(unknown.code, 4);
    EXPECT_THAT(unknown.err, ::testing::StartsWith("swiglu: NOT_FOUND: unknown region '"));
    EXPECT_THAT(unregistered_, IsEmpty());
  }
}

TEST_F(CliRegionsTest, UnregistersAllOfTheKind) {
  EXPECT_EQ(Regions({"--unregister_all", "--kind=system"}).code, 0);
  EXPECT_THAT(unregistered_, ElementsAre("system "));
  EXPECT_EQ(Regions({"--unregister_all"}).code, 0);
  EXPECT_THAT(unregistered_, ElementsAre("system ", "cuda "));
  has_system_ = false;
  EXPECT_EQ(Regions({"--unregister_all"}).code, 0);
  EXPECT_THAT(unregistered_, ElementsAre("cuda "));
}

TEST_F(CliRegionsTest, MissingServerIsThree) { EXPECT_EQ(Swiglu({"regions", kNoServer}).code, 3); }

}  // namespace
}  // namespace swiglu
