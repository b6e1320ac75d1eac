// SPDX-License-Identifier: Apache-2.0
//
// What the program `swiglu` prints, and its exit codes: usage, failures, progress, status.
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/client/cli_fixture.h"
#include "tests/client/fake_server.h"
#include "tests/client/named_tensors.h"
#include "tests/client/temp_folder.h"
#include "tests/client/unnamed.h"

namespace swiglu {
namespace {

using client::Dtype;
using client::FakeCall;
using client::FakeReply;
using client::FakeServer;
using client::Shape;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::StartsWith;

FakeReply StatusReply(const FakeCall& call) {
  if (call.method == "ServerReady") {
    inference::ServerReadyResponse response;
    response.set_ready(true);
    return client::Answer(response);
  }
  if (call.method == "ServerMetadata") {
    inference::ServerMetadataResponse response;
    response.set_name("swiglu-server");
    response.set_version("1.2.3");
    return client::Answer(response);
  }
  if (call.method == "RepositoryIndex") {
    inference::RepositoryIndexResponse response;
    auto* model = response.add_models();
    model->set_name("swiglu_forward_fp16");
    model->set_version("1");
    model->set_state("READY");
    *response.add_models() = *model;
    response.mutable_models(1)->set_name("swiglu_forward_fp32");
    return client::Answer(response);
  }
  if (call.method == "ModelMetadata") {
    inference::ModelMetadataResponse response;
    (*response.mutable_properties())["device"] = "cpu (AVX2)";
    return client::Answer(response);
  }
  inference::ModelStatisticsResponse response;
  auto* statistics = response.add_model_stats();
  statistics->set_name("swiglu_forward_fp16");
  statistics->set_inference_count(4);
  statistics->set_execution_count(2);
  statistics->mutable_inference_stats()->mutable_success()->set_count(4);
  statistics->mutable_inference_stats()->mutable_success()->set_ns(2'000'000);
  statistics->mutable_inference_stats()->mutable_fail()->set_count(1);
  return client::Answer(response);
}

TEST_F(CliTest, HelpAndVersionSucceed) {
  const Result help = Swiglu({"--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_THAT(help.out, HasSubstr("swiglu forward {--in FILE | --e FILE[:TENSOR]"));
  EXPECT_EQ(help.err, "");
  const Result version = Swiglu({"--version"});
  EXPECT_EQ(version.code, 0);
  EXPECT_THAT(version.out, MatchesRegex("swiglu [0-9]+\\.[0-9]+\\.[0-9]+ \\(.*\\)\n"));
}

TEST_F(CliTest, HelpOfACommandHasItsFlagsAlone) {
  const Result help = Swiglu({"forward", "--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_THAT(help.out, StartsWith("  swiglu forward {--in FILE | --e FILE[:TENSOR]"));
  for (const char* flag : {"  --server=127.0.0.1:8001\n", "  --e\n", "  --out\n"}) {
    EXPECT_THAT(help.out, HasSubstr(flag));
  }
  for (const char* flag : {"--dw", "--out_dir", "swiglu status"}) {
    EXPECT_THAT(help.out, Not(HasSubstr(flag)));
  }
  EXPECT_THAT(help.out, HasSubstr("Exit codes: 0 done, 1 bad input or file, 2 usage"));
  EXPECT_EQ(Swiglu({"-h", "forward"}).out, Swiglu({"--help"}).out);
}

TEST_F(CliTest, WrongUsageIsTwoWithOneLine) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{},
       "a command is missing: forward, backward, mlp, status, metadata, statistics, regions or "
       "bench; see swiglu --help"},
      {{"--json", "bench"},
       "bench is the first argument, and its flags follow it; see swiglu --help"},
      {{"status", "--model=x"}, "--model does not belong to this command; see swiglu --help"},
      {{"mlp", "--model="}, "--model is missing; see swiglu --help"},
      {{"fly"}, "unknown command 'fly'; see swiglu --help"},
      {{"staus"}, "unknown command 'staus', did you mean 'status'? See swiglu --help"},
      {{"status", "--sever=x"},
       "unknown flag '--sever', did you mean '--server'? See swiglu --help"},
      {{"status", "now"}, "unexpected argument 'now'; see swiglu --help"},
      {{"status", "--bogus"}, "unknown flag '--bogus'; see swiglu --help"},
      {{"status", "--flagfile=x"}, "unknown flag '--flagfile'; see swiglu --help"},
      {{"status", "--e=x.npy"}, "--e does not belong to this command; see swiglu --help"},
      {{"status", "--server"}, "--server needs a value; see swiglu --help"},
      {{"status", "--server="}, "--server is missing; see swiglu --help"},
      {{"status", "--json=perhaps"},
       "--json takes true or false, not 'perhaps'; see swiglu --help"},
      {{"status", "--timeout=soon"},
       "--timeout takes a duration such as 10s or 500ms, not 'soon'; see swiglu --help"},
      {{"status", "--timeout=0"}, "--timeout is above 0 and finite, not 0; see swiglu --help"},
      {{"status", "--timeout=inf"}, "--timeout is above 0 and finite, not inf; see swiglu --help"},
      {{"status", "--server=nowhere"},
       "bad server address 'nowhere': the port is missing; it takes HOST:PORT, dns:///NAME:PORT or "
       "unix:/path"},
      {{"status", "--kind=cuda"}, "--kind does not belong to this command; see swiglu --help"},
      {{"regions", "--kind=gpu"},
       "--kind takes both, system or cuda, not 'gpu'; see swiglu --help"},
      {{"regions", "--unregister=x", "--unregister_all"},
       "--unregister and --unregister_all do not go together; see swiglu --help"},
      {{"forward", "--e=x.npy", "--g=x.npy"}, "--out is missing; see swiglu --help"},
      {{"forward", "--e=x.npy", "--out=h.npy"}, "--g is missing; see swiglu --help"},
      {{"backward", "--e=x.npy", "--g=x.npy", "--out_dir=."},
       "--dw is missing; see swiglu --help"}};
  for (const auto& [arguments, line] : cases) {
    const Result run = Swiglu(arguments);
    EXPECT_EQ(run.code, 2) << absl::StrJoin(arguments, " ");
    EXPECT_EQ(run.err, absl::StrCat("swiglu: ", line, "\n"));
    EXPECT_EQ(run.out, "");
  }
}

TEST_F(CliTest, BadFilesAreOneWithOneLine) {
  const std::string good = Npy("good.npy", {3, 4}, 1);
  const std::string turned = Npy("turned.npy", {4, 3}, 1);
  const std::string bf16 = Bf16("bf16.safetensors", {3, 4}, 1);
  const std::string cut = folder_.Write("cut.npy", TempFolder::Read(good).substr(0, 100));
  const std::string out = folder_.Path("h.npy");
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"--e", "none.npy", "--g", good}, "none.npy: cannot open: No such file or directory"},
      {{"--e", good, "--g", cut}, cut + ": truncated in its header: it has 90 of 118 bytes"},
      {{"--e", good, "--g", "x.txt"},
       "x.txt: unknown extension; expected .npy, .safetensors, .raw or .bin"},
      {{"--e", good, "--g", turned}, "shape of 'g' is [4,3]; 'e' has [3,4]"},
      {{"--e", good, "--g", bf16}, "input 'g' is BF16; 'swiglu_forward_fp16' takes FP16"},
      {{"--e", bf16 + ":y", "--g", bf16}, bf16 + ": no tensor 'y'; it holds x"},
      {{"--e", bf16, "--g", bf16}, out + ": .npy has no type for BF16; use .safetensors"},
      {{"--e", good, "--g", good, "--out", good},
       good + ": exists already; --overwrite replaces it"},
      {{"--e", good, "--g", good, "--out", "h.txt"},
       "h.txt: unknown extension; expected .npy, .safetensors, .raw or .bin"},
      {{"--e", good, "--g", good, "--out", folder_.Path("none/h.npy")},
       folder_.Path("none/h.npy") + ": cannot write to its folder: No such file or directory"}};
  for (const auto& [files, line] : cases) {
    std::vector<std::string> arguments = {"forward", kNoServer, "--out", out};
    arguments.insert(arguments.end(), files.begin(), files.end());
    const Result run = Swiglu(arguments);
    EXPECT_EQ(run.code, 1) << line;
    EXPECT_EQ(run.err, absl::StrCat("swiglu: ", line, "\n"));
  }
}

TEST_F(CliTest, BackwardWantsInputsOfOneKind) {
  const std::string npy = Npy("a.npy", {2}, 1);
  const std::string safetensors =
      folder_.Write("b.safetensors", SafetensorsFile("x", Dtype::kFp16, Shape{2}, "abcd"));
  const Result run = Swiglu({"backward", kNoServer, "--dw", npy, "--e", npy, "--g", safetensors,
                             "--out_dir", folder_.Path(".")});
  EXPECT_EQ(run.code, 1);
  EXPECT_EQ(
      run.err,
      "swiglu: the inputs are of several kinds, .npy and .safetensors; results in a folder or on "
      "stdout take the kind of all; --out=FILE names another\n");
}

TEST_F(CliTest, AnAbsentServerIsThree) {
  const std::string e = Npy("e.npy", {2}, 1);
  const Result forward =
      Swiglu({"forward", kNoServer, "--e", e, "--g", e, "--out", folder_.Path("h.npy")});
  EXPECT_EQ(forward.code, 3);
  EXPECT_THAT(forward.err, StartsWith("swiglu: UNAVAILABLE: no connection to 127.0.0.1:1: "));
  EXPECT_EQ(std::count(forward.err.begin(), forward.err.end(), '\n'), 1);
  const Result status = Swiglu({"status", kNoServer});
  EXPECT_EQ(status.code, 3);
  EXPECT_EQ(folder_.NumFiles(), 1) << "only e.npy";
}

TEST_F(CliTest, AServerThatIsNotReadyIsThree) {
  FakeServer server(
      [](const FakeCall&) { return client::Answer(inference::ServerReadyResponse()); });
  const std::string e = Npy("e.npy", {2}, 1);
  const Result run = Swiglu({"forward", "--server", server.address(), "--e", e, "--g", e, "--out",
                             folder_.Path("h.npy")});
  EXPECT_EQ(run.code, 3);
  EXPECT_EQ(run.err, "swiglu: the server is not ready\n");
}

TEST_F(CliTest, ARefusalIsFour) {
  FakeReply reply;
  reply.status = grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                              "request of 9 bytes exceeds max_request_bytes 8\nand more");
  const Result run = ForwardAgainst(reply);
  EXPECT_EQ(run.code, 4);
  EXPECT_EQ(
      client::Unnamed(run.err),
      "swiglu: RESOURCE_EXHAUSTED: request of 9 bytes exceeds max_request_bytes 8 and more\n");
}

TEST_F(CliTest, AFullQueueIsFourAndADrainIsThree) {
  FakeReply reply;
  reply.status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "queue is full: 4096 requests");
  EXPECT_EQ(ForwardAgainst(reply).code, 4);
  reply.status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "server is draining");
  const Result run = ForwardAgainst(reply, /*ready_afterwards=*/false);
  EXPECT_EQ(run.code, 3);
  EXPECT_EQ(client::Unnamed(run.err), "swiglu: UNAVAILABLE: server is draining (tried 4 times)\n");
}

TEST_F(CliTest, ASilentServerIsAFailedCall) {
  FakeReply reply;
  reply.never = true;
  const Result run = ForwardAgainst(reply);
  EXPECT_EQ(run.code, 4);
  EXPECT_THAT(run.err, MatchesRegex("swiglu: DEADLINE_EXCEEDED: no answer from .* within 1s\n"));
}

// Whether it hears nothing because the server is gone or because it is slow makes a difference.
TEST_F(CliTest, AServerThatFallsSilentAndIsNotReadyIsThree) {
  FakeReply reply;
  reply.never = true;
  EXPECT_EQ(ForwardAgainst(reply, /*ready_afterwards=*/false).code, 3);
}

TEST_F(CliTest, TheQuestionAfterAFailureTakesTwoSecondsAtMost) {
  int num_asked = 0;
  FakeServer server([&](const FakeCall& call) {
    FakeReply reply;
    if (call.method == "ServerReady" && ++num_asked == 1) return Echo(call);
    if (call.method == "ServerReady") {
      EXPECT_LE(call.deadline - absl::Now(), absl::Seconds(2.1));
      reply.never = true;
      return reply;
    }
    reply.status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "busy");
    return reply;
  });
  const std::string e = Npy("e.npy", {2}, 1);
  const Result run = Swiglu({"forward", "--server", server.address(), "--e", e, "--g", e, "--out",
                             folder_.Path("h.npy")});
  EXPECT_EQ(run.code, 3);
  EXPECT_EQ(client::Unnamed(run.err), "swiglu: UNAVAILABLE: busy (tried 4 times)\n");
  EXPECT_EQ(num_asked, 2);
}

TEST_F(CliTest, AServerThatKnowsNoReadinessIsFour) {
  FakeServer server([](const FakeCall&) {
    FakeReply reply;
    reply.status = grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "no such method");
    return reply;
  });
  const std::string e = Npy("e.npy", {2}, 1);
  const Result run = Swiglu({"forward", "--server", server.address(), "--e", e, "--g", e, "--out",
                             folder_.Path("h.npy")});
  EXPECT_EQ(run.code, 4);
  EXPECT_EQ(client::Unnamed(run.err), "swiglu: UNIMPLEMENTED: no such method\n");
}

TEST_F(CliTest, OutputThatCannotBeWrittenIsOne) {
  FakeServer server(StatusReply);
  out_ = "/dev/full";
  const Result run = Swiglu({"status", "--server", server.address()});
  EXPECT_EQ(run.code, 1);
  EXPECT_EQ(run.err, "swiglu: cannot write to stdout\n");
}

TEST_F(CliTest, RateIsThatOfAllTensors) {
  for (const auto& [operation, num_tensors] : {std::pair("forward", 3), std::pair("backward", 6)}) {
    const std::string out = operation == std::string("forward") ? "--out=" : "--out_dir=";
    const Result run = RunWith(operation, {out + folder_.Path("h.npy"), "--json"}, [] {});
    const auto json = nlohmann::json::parse(run.out, nullptr, /*allow_exceptions=*/false);
    ASSERT_TRUE(json.is_object()) << run.out << run.err;
    std::filesystem::remove_all(folder_.Path("h.npy"));
    EXPECT_NEAR(json["gb_per_s"].get<double>() * json["ms"].get<double>() * 1e6, 4 * num_tensors,
                1e-6);
  }
}

// Answers an operation in one message with RESOURCE_EXHAUSTED, so that it is sent in two.
FakeReply TakesHalves(const FakeCall& call) {
  if (call.message.size() < size_t{33} << 20) return Echo(call);
  FakeReply reply;
  reply.status = grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "too large");
  return reply;
}

// Appends what the terminal shows. Returns true once it shows `wanted`, false if nobody writes to
// it any more.
bool ReadUntil(const char* wanted, int terminal, std::string* shown) {
  char block[4096];
  while (shown->find(wanted) == std::string::npos) {
    const ssize_t size = read(terminal, block, sizeof(block));
    if (size <= 0) return false;
    shown->append(block, static_cast<size_t>(size));
  }
  return true;
}

TEST_F(CliTest, ProgressOfChunksIsShownOnATerminal) {
  const int terminal = posix_openpt(O_RDWR | O_NOCTTY);
  ASSERT_GE(terminal, 0);
  ASSERT_EQ(grantpt(terminal), 0);
  ASSERT_EQ(unlockpt(terminal), 0);
  std::string shown;
  std::thread reader;
  int num_chunks = 0;
  // Never answers the second chunk. The program ends when the terminal shows the first.
  FakeServer server([&](const FakeCall& call) {
    FakeReply reply = TakesHalves(call);
    if (call.method == "ModelInfer" && reply.status.ok() && ++num_chunks == 2) {
      reply.never = true;
      reader = std::thread([&] {
        if (ReadUntil("] 1 of 2 parts", terminal, &shown)) Signal(SIGTERM);
      });
    }
    return reply;
  });
  const std::string e = Npy("e.npy", {10 << 20}, 1);
  err_ = ptsname(terminal);
  const Result run = Swiglu({"forward", "--server", server.address(), "--e", e, "--g", e, "--out",
                             folder_.Path("h.npy")});
  ASSERT_TRUE(reader.joinable());
  reader.join();
  close(terminal);
  EXPECT_EQ(run.signal, SIGTERM);
  const std::string half(10, '#'), rest(10, '.');
  EXPECT_THAT(shown, HasSubstr(absl::StrCat("\r\033[Kwaiting for the server [", half, rest,
                                            "] 1 of 2 parts")));
}

TEST_F(CliTest, StatusPrintsWhatTheServerSays) {
  FakeServer server(StatusReply);
  const Result run = Swiglu({"status", "--server", server.address()});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.out,
            absl::StrCat("server   ", server.address(),
                         "\nprogram  swiglu-server 1.2.3\n"
                         "ready    yes\n"
                         "device   cpu (AVX2)\n\n"
                         "model                  version  state          requests     failed    "
                         "batches    mean ms\n"
                         "swiglu_forward_fp16    1        READY                 4          1       "
                         "   2      0.500\n"
                         "swiglu_forward_fp32    1        READY                 0          0       "
                         "   0          -\n"));
}

TEST_F(CliTest, StatusPrintsJson) {
  FakeServer server(StatusReply);
  const Result run = Swiglu({"status", "--json", "--server", server.address()});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.out,
            absl::StrCat("{\"server\":\"", server.address(), R"json(","name":"swiglu-server",)json",
                         R"json("version":"1.2.3","ready":true,)json",
                         R"json("device":"cpu (AVX2)","extensions":[],)json",
                         R"json("models":[{"name":"swiglu_forward_fp16",)json",
                         R"json("version":"1","state":"READY","requests":4,)json",
                         R"json("failed":1,"batches":2,"mean_ms":0.5},)json",
                         R"json({"name":"swiglu_forward_fp32",)json",
                         R"json("version":"1","state":"READY","requests":0,)json",
                         R"json("failed":0,"batches":0,"mean_ms":null}]})json", "\n"));
}

}  // namespace
}  // namespace swiglu
