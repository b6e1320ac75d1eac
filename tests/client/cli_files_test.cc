// SPDX-License-Identifier: Apache-2.0
//
// The files of the program `swiglu`: results appear whole or not at all, inputs may change under
// it.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/client/bytes.h"
#include "tests/client/cli_fixture.h"
#include "tests/client/fake_server.h"
#include "tests/client/named_tensors.h"
#include "tests/client/temp_folder.h"

namespace swiglu {
namespace {

using client::FakeCall;
using client::FakeReply;
using client::FakeServer;
using client::Shape;
using ::testing::MatchesRegex;

TEST_F(CliTest, ForwardWritesTheResult) {
  FakeServer server(Echo);
  const std::string e = Npy("e.npy", {2, 3}, 1), g = Npy("g.npy", {2, 3}, 2);
  const std::string out = folder_.Path("h.safetensors");
  const Result run =
      Swiglu({"forward", "--server=" + server.address(), "--e", e, "--g", g, "--out", out});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_THAT(run.out, MatchesRegex("forward FP16 \\[2,3\\]: [0-9.]+ ms, [0-9.]+ GB/s\n"));
  EXPECT_EQ(run.err, "");
  const auto h = OpenTensor(out + ":h");
  ASSERT_TRUE(h.ok()) << h.status();
  EXPECT_EQ(h->tensor.shape, (Shape{2, 3}));
  EXPECT_EQ(AsText(h->tensor.bytes), Pattern(12, 1));
}

TEST_F(CliTest, ALineThatCannotBeWrittenSaysThatTheResultsAre) {
  out_ = "/dev/full";
  const std::string h = folder_.Path("h.npy");
  const Result run = RunWith("forward", {"--out", h}, [] {});
  EXPECT_EQ(run.code, 1);
  EXPECT_EQ(run.err, "swiglu: cannot write to stdout; the results are written\n");
  EXPECT_EQ(TempFolder::Read(h), TempFolder::Read(folder_.Path("in.npy")));
}

TEST_F(CliTest, BackwardWritesThreeFilesOfTheInputsKind) {
  FakeServer server(Echo);
  const Result run =
      Swiglu({"backward", "--server", server.address(), "--dw", Bf16("dw.safetensors", {5}, 1),
              "--e", Bf16("e.safetensors", {5}, 2), "--g", Bf16("g.safetensors", {5}, 3),
              "--out_dir", folder_.Path("."), "--json"});
  EXPECT_EQ(run.code, 0) << run.err;
  const auto json = nlohmann::json::parse(run.out, nullptr, /*allow_exceptions=*/false);
  ASSERT_TRUE(json.is_object()) << run.out;
  EXPECT_EQ(json["op"], "backward");
  EXPECT_EQ(json["dtype"], "BF16");
  EXPECT_EQ(json["shape"], nlohmann::json::array({5}));
  EXPECT_GT(json["ms"].get<double>(), 0);
  EXPECT_GT(json["gb_per_s"].get<double>(), 0);
  uint32_t seed = 1;
  for (const std::string name : {"h", "df", "de"}) {
    const auto file = OpenTensor(folder_.Path(name + ".safetensors:" + name));
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(AsText(file->tensor.bytes), Pattern(10, seed++));
  }
  EXPECT_EQ(folder_.NumFiles(), 6) << "no temporary file is left";
}

TEST_F(CliTest, OverwriteReplaces) {
  FakeServer server(Echo);
  const std::string e = Npy("e.npy", {2}, 1), out = folder_.Write("h.npy", "old");
  const Result run = Swiglu(
      {"forward", "--server", server.address(), "--e", e, "--g", e, "--out", out, "--overwrite"});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(TempFolder::Read(out), TempFolder::Read(e));
}

TEST_F(CliTest, AFailedCallLeavesNoFile) {
  FakeReply reply;
  reply.status = grpc::Status(grpc::StatusCode::INTERNAL, "device 0 failed");
  EXPECT_EQ(ForwardAgainst(reply).code, 4);
  EXPECT_EQ(folder_.NumFiles(), 2) << "only the inputs";
}

TEST_F(CliTest, AnOutputFolderThatIsNotThereIsMadeWithTheResults) {
  for (const char* out_dir : {"one", "a/b/c", "d/", "e/./f//"}) {
    const std::string out = folder_.Path(out_dir);
    bool was_there = true;
    const Result run = RunWith("backward", {"--out_dir=" + out, "--json"},
                               [&] { was_there = access(out.c_str(), F_OK) == 0; });
    EXPECT_EQ(run.code, 0) << run.err;
    EXPECT_FALSE(was_there);
    for (const char* name : {"h", "df", "de"}) {
      EXPECT_EQ(TempFolder::Read(absl::StrCat(out, "/", name, ".npy")),
                TempFolder::Read(folder_.Path("in.npy")));
    }
  }
}

TEST_F(CliTest, AnOutputFolderThatCannotBeIsOneBeforeAnythingIsSent) {
  const std::string file = folder_.Write("file", "x");
  const std::string e = Npy("e.npy", {2}, 1);
  for (const std::string& out : {file, file + "/a"}) {
    const Result run =
        Swiglu({"backward", kNoServer, "--dw", e, "--e", e, "--g", e, "--out_dir", out});
    EXPECT_EQ(run.code, 1);
    EXPECT_EQ(run.err,
              absl::StrCat("swiglu: ", out, ": cannot write to the folder: Not a directory\n"));
  }
}

TEST_F(CliTest, AFailedCallLeavesNoFolder) {
  const std::string e = Npy("e.npy", {2}, 1);
  const Result run = Swiglu(
      {"backward", kNoServer, "--dw", e, "--e", e, "--g", e, "--out_dir", folder_.Path("a/b")});
  EXPECT_EQ(run.code, 3);
  EXPECT_EQ(folder_.NumFiles(), 1) << "only the input";
}

// While the call runs another process takes a name.
TEST_F(CliTest, AResultThatCannotGetItsNameKeepsNoOtherFromBeingWritten) {
  const std::string out = folder_.Path("out");
  const Result run = RunWith("backward", {"--out_dir", out}, [&] {
    mkdir(out.c_str(), 0700);
    folder_.Write("out/df.npy", "mine");
  });
  EXPECT_EQ(run.code, 1);
  EXPECT_EQ(run.err, absl::StrCat("swiglu: ", out,
                                  "/df.npy: exists already; --overwrite replaces it; results "
                                  "written: ",
                                  out, "/h.npy, ", out, "/de.npy\n"));
  EXPECT_EQ(TempFolder::Read(out + "/df.npy"), "mine");
  const std::string in = TempFolder::Read(folder_.Path("in.npy"));
  EXPECT_EQ(TempFolder::Read(out + "/h.npy"), in);
  EXPECT_EQ(TempFolder::Read(out + "/de.npy"), in);
}

TEST_F(CliTest, AResultThatCannotBeWrittenSaysThatNoneWas) {
  const std::string out = folder_.Path("out");
  const Result run = RunWith("backward", {"--out_dir", out, "--overwrite"},
                             [&] { std::filesystem::create_directories(out + "/df.npy"); });
  EXPECT_EQ(run.code, 1);
  EXPECT_EQ(run.err,
            absl::StrCat("swiglu: ", out, "/df.npy: not a regular file; results written: none\n"));
  EXPECT_NE(access((out + "/h.npy").c_str(), F_OK), 0);
}

TEST_F(CliTest, AnOrderToEndIsObeyedAndLeavesNothing) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    const Result run = RunWith("backward", {"--out_dir", folder_.Path("out")}, [&] {
      Signal(signal);
      // The call must not end before the program has.
      for (pid_t child = child_.load(); child != 0; child = child_.load()) child_.wait(child);
    });
    EXPECT_EQ(run.signal, signal) << run.code << run.err;
    EXPECT_EQ(run.err, "");
    EXPECT_EQ(folder_.NumFiles(), 1) << "only the input";
  }
}

TEST_F(CliTest, NohupIsHeard) {
  signal(SIGHUP, SIG_IGN);
  sigdelset(&default_signals_, SIGHUP);
  const Result run = RunWith("forward", {"--out", folder_.Path("h.npy")}, [&] { Signal(SIGHUP); });
  signal(SIGHUP, SIG_DFL);
  EXPECT_EQ(run.code, 0) << run.err;
}

// Another process cuts the input short after it was opened. What is gone cannot be sent, or is sent
// as zeros.
TEST_F(CliTest, AnInputThatIsCutShortIsOneAndIsNamed) {
  const std::string e = Npy("e.npy", {100, 1000}, 1);
  const auto size = static_cast<off_t>(TempFolder::Read(e).size());
  const std::string whole = TempFolder::Read(e);
  for (const off_t left : {off_t{0}, off_t{10'000}, size - 1}) {
    folder_.Write("e.npy", whole);
    FakeServer server([&](const FakeCall& call) {
      if (call.method == "ServerReady") {
        EXPECT_EQ(truncate(e.c_str(), left), 0);
      }
      return Echo(call);
    });
    const Result run = Swiglu({"forward", "--server", server.address(), "--e", e, "--g", e, "--out",
                               folder_.Path("h.npy")});
    EXPECT_EQ(run.code, 1);
    EXPECT_THAT(
        run.err,
        ::testing::AnyOf(absl::StrCat("swiglu: ", e, ": was cut short while it was read: it had ",
                                      size, " bytes and has ", left, "\n"),
                         absl::StrCat("swiglu: ", e, ": was cut short while it was read\n")));
    EXPECT_NE(access(folder_.Path("h.npy").c_str(), F_OK), 0);
  }
}

}  // namespace
}  // namespace swiglu
