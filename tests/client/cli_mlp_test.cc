// SPDX-License-Identifier: Apache-2.0
//
// The command `swiglu mlp`: its files, what it prints, and its exit codes.
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/files/npy.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/client/bytes.h"
#include "tests/client/cli_fixture.h"
#include "tests/client/fake_server.h"
#include "tests/client/named_tensors.h"
#include "tests/client/temp_folder.h"
#include "tests/client/unnamed.h"

namespace swiglu {
namespace {

using client::FakeCall;
using client::FakeReply;
using client::FakeServer;
using client::Shape;
using ::testing::MatchesRegex;

class CliMlpTest : public CliTest {
 protected:
  // Runs `swiglu mlp` for layer 3 of the MLP tiny.
  Result Mlp(const std::string& server, std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"mlp", "--server=" + server, "--model=tiny", "--layer=3"});
    return Swiglu(arguments);
  }
};

TEST_F(CliMlpTest, WritesYAndNamesTheWeights) {
  std::string model;
  FakeServer server([&](const FakeCall& call) {
    inference::ModelInferRequest request;
    if (call.method == "ModelInfer" && request.ParseFromString(call.message)) {
      model = request.model_name();
    }
    return Echo(call);
  });
  const std::string out = folder_.Path("y.safetensors");
  const Result run = Mlp(server.address(), {"--x", Bf16("x.safetensors", {2, 8}, 1), "--out", out});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_THAT(run.out,
              MatchesRegex(absl::StrCat("mlp tiny 3 forward BF16 \\[2,8\\]: [0-9.]+ ms, [0-9.]+ "
                                        "GB/s, weights ",
                                        client::kFakeWeights, "\n")));
  EXPECT_EQ(run.err, "");
  EXPECT_EQ(model, "mlp_tiny_3_forward");
  const auto y = OpenTensor(out + ":y");
  ASSERT_TRUE(y.ok()) << y.status();
  EXPECT_EQ(y->tensor.shape, (Shape{2, 8}));
  EXPECT_EQ(AsText(y->tensor.bytes), Pattern(32, 1));
}

TEST_F(CliMlpTest, WithDyItWritesDx) {
  inference::ModelInferRequest request;
  FakeServer server([&](const FakeCall& call) {
    if (call.method == "ModelInfer") request.ParseFromString(call.message);
    return Echo(call);
  });
  const std::string out = folder_.Path("dx.npy");
  const Result run = Mlp(server.address(), {"--x", Npy("x.npy", {8}, 1), "--dy",
                                            Npy("dy.npy", {8}, 2), "--out", out, "--json"});
  EXPECT_EQ(run.code, 0) << run.err;
  const auto json = nlohmann::json::parse(run.out, nullptr, /*allow_exceptions=*/false);
  ASSERT_TRUE(json.is_object()) << run.out;
  EXPECT_EQ(json["op"], "backward");
  EXPECT_EQ(json["model"], "tiny");
  EXPECT_EQ(json["layer"], 3);
  EXPECT_EQ(json["weights_sha256"], client::kFakeWeights);
  EXPECT_EQ(json["dtype"], "FP16");
  EXPECT_EQ(json["shape"], nlohmann::json::array({8}));
  EXPECT_EQ(json["files"], (nlohmann::json{{"dx", out}}));
  // x, dy and dx.
  EXPECT_NEAR(json["gb_per_s"].get<double>() * json["ms"].get<double>() * 1e6, 3 * 16, 1e-6);
  EXPECT_EQ(request.model_name(), "mlp_tiny_3_backward");
  EXPECT_EQ(request.raw_input_contents(1), Pattern(16, 2));
  EXPECT_EQ(TempFolder::Read(out), TempFolder::Read(folder_.Path("x.npy")));
}

TEST_F(CliMlpTest, WrongUsageIsTwo) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"mlp", "--layer=0", "--x=x.npy", "--out=y.npy"}, "--model is missing"},
      {{"mlp", "--model=m", "--x=x.npy", "--out=y.npy"}, "--layer is missing"},
      {{"mlp", "--model=m", "--layer=0", "--out=y.npy"}, "--x is missing"},
      {{"mlp", "--model=m", "--layer=0", "--x=x.npy"}, "--out is missing"},
      {{"mlp", "--model=m", "--layer=-1", "--x=x.npy", "--out=y.npy"},
       "--layer takes a number, 0 or more, not '-1'"},
      {{"mlp", "--model=m", "--layer=0", "--x=x.npy", "--out=y.npy", "--e=e.npy"},
       "--e does not belong to this command"},
      {{"forward", "--e=x.npy", "--g=x.npy", "--out=h.npy", "--dy=x.npy"},
       "--dy does not belong to this command"}};
  for (const auto& [arguments, line] : cases) {
    const Result run = Swiglu(arguments);
    EXPECT_EQ(run.code, 2) << absl::StrJoin(arguments, " ");
    EXPECT_EQ(run.err, absl::StrCat("swiglu: ", line, "; see swiglu --help\n"));
  }
}

TEST_F(CliMlpTest, BadFilesAreOneBeforeAnythingIsSent) {
  const std::string x = Npy("x.npy", {2, 8}, 1), dy = Npy("dy.npy", {16}, 1);
  const std::string fp32 = folder_.Write(
      "fp32.npy", files::NpyHeader(client::Dtype::kFp32, Shape{2}).value() + "12345678");
  const std::string out = folder_.Path("y.npy");
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"--x", fp32, "--out", out}, "input 'x' is FP32; 'mlp_tiny_3_forward' takes FP16 or BF16"},
      {{"--x", x, "--dy", dy, "--out", out}, "shape of 'dy' is [16]; 'x' has [2,8]"},
      {{"--x", Npy("scalar.npy", {}, 1), "--out", out},
       "last dimension of 'x' is missing; 'mlp_tiny_3_forward' takes its hidden size"},
      {{"--x", x, "--dy", "none.npy", "--out", out},
       "none.npy: cannot open: No such file or directory"},
      {{"--x", x, "--out", dy}, dy + ": exists already; --overwrite replaces it"},
      {{"--x", Bf16("x.safetensors", {8}, 1), "--out", out},
       out + ": .npy has no type for BF16; use .safetensors"}};
  for (const auto& [arguments, line] : cases) {
    const Result run = Mlp("127.0.0.1:1", arguments);
    EXPECT_EQ(run.code, 1) << line;
    EXPECT_EQ(run.err, absl::StrCat("swiglu: ", line, "\n"));
  }
}

TEST_F(CliMlpTest, ARefusalIsFourAndLeavesNoFile) {
  FakeServer server([](const FakeCall& call) {
    FakeReply reply = Echo(call);
    if (call.method == "ModelInfer") {
      reply.status =
          grpc::Status(grpc::StatusCode::NOT_FOUND, "unknown model 'mlp_tiny_3_forward'");
    }
    return reply;
  });
  const std::string y = folder_.Path("y.npy");
  const Result run = Mlp(server.address(), {"--x", Npy("x.npy", {8}, 1), "--out", y});
  EXPECT_EQ(run.code, 4);
  EXPECT_EQ(client::Unnamed(run.err), "swiglu: NOT_FOUND: unknown model 'mlp_tiny_3_forward'\n");
  EXPECT_EQ(run.out, "");
  EXPECT_EQ(folder_.NumFiles(), 1) << "only x.npy";
}

}  // namespace
}  // namespace swiglu
