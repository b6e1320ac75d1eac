// SPDX-License-Identifier: Apache-2.0
//
// Where the program `swiglu` takes its inputs from and puts its results: the rules of the flags,
// and the check of results.
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
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

using client::Dtype;
using client::FakeServer;
using client::Shape;
using ::testing::MatchesRegex;

class CliInputsTest : public CliTest {
 protected:
  // A file with these FP16 tensors of shape [2].
  std::string Named(absl::string_view file, const std::vector<std::string>& names) {
    std::vector<files::NamedTensor> tensors;
    std::string data;
    for (const std::string& name : names) {
      tensors.push_back({name, {Dtype::kFp16, {2}, AsBytes("....")}});
      data += (name + "....").substr(0, 4);
    }
    return folder_.Write(file, files::SafetensorsHeader(tensors) + data);
  }

  // Each run fails with `code` and with its line.
  void ExpectFailures(int code,
                      const std::vector<std::pair<std::vector<std::string>, std::string>>& cases) {
    for (const auto& [arguments, line] : cases) {
      std::vector<std::string> all = arguments;
      all.push_back(kNoServer);
      const Result run = Swiglu(all);
      EXPECT_EQ(run.code, code) << absl::StrJoin(arguments, " ");
      EXPECT_EQ(run.err,
                absl::StrCat("swiglu: ", line, code == 2 ? "; see swiglu --help\n" : "\n"));
      EXPECT_EQ(run.out, "");
    }
  }
};

TEST_F(CliInputsTest, OneFileHasAllInputsByName) {
  FakeServer server(Echo);
  const std::string in = Named("in.safetensors", {"g", "other", "e", "dw"});
  const std::string out = folder_.Path("out.safetensors");
  const Result run =
      Swiglu({"backward", "--server", server.address(), "--in", in, "--out", out, "--json"});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(nlohmann::json::parse(run.out)["files"],
            (nlohmann::json{{"h", out}, {"df", out}, {"de", out}}));
  // The server echoes dw, e and g.
  EXPECT_EQ(AsText(OpenTensor(out + ":h")->tensor.bytes), "dw..");
  EXPECT_EQ(AsText(OpenTensor(out + ":df")->tensor.bytes), "e...");
  EXPECT_EQ(AsText(OpenTensor(out + ":de")->tensor.bytes), "g...");
  EXPECT_EQ(folder_.NumFiles(), 2);
}

TEST_F(CliInputsTest, AFlagNamesAnotherTensorOrFile) {
  FakeServer server(Echo);
  const std::string in = Named("in.safetensors", {"e", "g", "gate"});
  const std::string other = Named("other.safetensors", {"e"});
  for (const auto& [e, first] : {std::pair<std::string, std::string>(":gate", "gate"),
                                 {in + ":gate", "gate"},
                                 {other, "e..."}}) {
    const std::string out = folder_.Path("h.safetensors");
    const Result run = Swiglu({"forward", "--server", server.address(), "--in", in, "--e", e,
                               "--out", out, "--overwrite"});
    EXPECT_EQ(run.code, 0) << run.err;
    EXPECT_EQ(AsText(OpenTensor(out)->tensor.bytes), first);
  }
}

TEST_F(CliInputsTest, OpOfMlpSaysWhichInputsThereAre) {
  FakeServer server(Echo);
  const std::string in = Named("in.safetensors", {"dy", "x"});
  for (const auto& [op, result] : {std::pair("forward", "y"), std::pair("backward", "dx")}) {
    const std::string out = folder_.Path("out.safetensors");
    const Result run = Swiglu({"mlp", "--server", server.address(), "--model=m", "--layer=0",
                               "--in", in, absl::StrCat("--op=", op), "--out", out, "--overwrite"});
    EXPECT_EQ(run.code, 0) << run.err;
    EXPECT_THAT(run.out, MatchesRegex(absl::StrCat("mlp m 0 ", op, " FP16 .*\n")));
    EXPECT_TRUE(OpenTensor(absl::StrCat(out, ":", result)).ok());
  }
}

TEST_F(CliInputsTest, RawFilesAreReadAndWritten) {
  FakeServer server(Echo);
  const std::string e = folder_.Write("e.raw", "abcd"), g = folder_.Write("g.bin", "efgh");
  const std::string both = folder_.Write("both.raw", "abcdefgh");
  const std::string npy = Npy("g.npy", {2}, 1);
  for (const std::vector<std::string>& inputs :
       {std::vector<std::string>{"--e", e, "--g", g}, {"--in", both}, {"--in", e, "--g", npy}}) {
    std::vector<std::string> arguments = {"forward",     "--server", server.address(),
                                          "--shape=2",   "--dtype",  "fp16",
                                          "--overwrite", "--out",    folder_.Path("h.raw")};
    arguments.insert(arguments.end(), inputs.begin(), inputs.end());
    const Result run = Swiglu(arguments);
    EXPECT_EQ(run.code, 0) << run.err;
    EXPECT_EQ(TempFolder::Read(folder_.Path("h.raw")), "abcd");
  }
}

TEST_F(CliInputsTest, AnInputMayBeReplacedByTheResult) {
  FakeServer server(Echo);
  const std::string in = Named("in.safetensors", {"e", "g"});
  const Result run =
      Swiglu({"forward", "--server", server.address(), "--in", in, "--out", in, "--overwrite"});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(AsText(OpenTensor(in + ":h")->tensor.bytes), "e...");
}

TEST_F(CliInputsTest, FlagsThatDoNotFitTogetherAreTwo) {
  const std::string out = "--out=h.npy", shape = "--shape=2", dtype = "--dtype=fp16";
  ExpectFailures(
      2, {{{"forward", "--in=-", "--e=-", out},
           "--in and --e name standard input; --in=- alone takes several tensors from it"},
          {{"forward", "--e=-:a", "--g=-:b", out},
           "--e and --g name standard input; --in=- alone takes several tensors from it"},
          {{"forward", "--e=:a", "--g=g.npy", out}, "--e=:a is a tensor of --in, which is missing"},
          {{"forward", "--in=a.npy", "--e=e.npy", "--g=g.npy", out},
           "--in has no input to give: other flags name all of them"},
          {{"forward", "--e=e.raw", "--g=g.npy", out},
           "e.raw is raw, so it needs --shape and --dtype"},
          {{"forward", "--in=e.bin", shape, out}, "e.bin is raw, so it needs --shape and --dtype"},
          {{"forward", "--in=-", dtype, out}, "--shape and --dtype go together"},
          {{"forward", "--in=a.safetensors", shape, dtype, out},
           "--shape and --dtype are for raw inputs, and there is none"},
          {{"forward", "--in=a.raw", "--e=:gate", shape, dtype, out},
           "a.raw is raw, so it has no tensor 'gate'"},
          {{"forward", "--in=a.raw", "--shape=4,-1", dtype, out},
           "--shape takes one or more dimensions such as 4,1000, not '4,-1'"},
          {{"forward", "--in=a.raw", "--shape= 4", dtype, out},
           "--shape takes one or more dimensions such as 4,1000, not ' 4'"},
          {{"forward", "--in=a.raw", "--shape=4,+1000", dtype, out},
           "--shape takes one or more dimensions such as 4,1000, not '4,+1000'"},
          {{"forward", "--in=a.raw", "--shape=4,", dtype, out},
           "--shape takes one or more dimensions such as 4,1000, not '4,'"},
          {{"forward", "--in=a.raw", "--shape=", dtype, out},
           "--shape takes one or more dimensions such as 4,1000, not ''"},
          {{"forward", "--in=a.raw", "--shape=99999999999999999999", dtype, out},
           "--shape takes one or more dimensions such as 4,1000, not '99999999999999999999'"},
          {{"forward", "--in=a.raw", "--shape=9223372036854775807,9", dtype, out},
           "--shape is too large: [9223372036854775807,9]"},
          {{"forward", "--in=a.raw", shape, "--dtype=int8", out},
           "--dtype takes fp16, bf16 or fp32, not 'int8'"},
          {{"backward", "--in=a.safetensors"}, "--out or --out_dir is missing"},
          {{"backward", "--in=a.safetensors", out, "--out_dir=d"},
           "--out and --out_dir do not go together"},
          {{"backward", "--in=a.safetensors", "--out_dir=-"},
           "--out_dir is a folder; --out=- is standard output"},
          {{"forward", "--in=a.safetensors"}, "--out is missing"},
          {{"mlp", "--model=m", "--layer=0", "--in=a.safetensors", "--check", out},
           "--check does not work with mlp, whose weights are at the server"},
          {{"mlp", "--model=m", "--layer=0", "--x=x.npy", "--op=backward", out}, "--dy is missing"},
          {{"mlp", "--model=m", "--layer=0", "--x=x.npy", "--dy=d.npy", "--op=forward", out},
           "--op=forward takes no --dy"}});
}

TEST_F(CliInputsTest, FilesThatDoNotFitAreOneBeforeAnythingIsSent) {
  const std::string in = Named("in.safetensors", {"e", "x"});
  const std::string all = Named("all.safetensors", {"dw", "e", "g"});
  const std::string raw = folder_.Write("a.raw", "1234567"), npy = Npy("e.npy", {2}, 1);
  const std::string pipe = folder_.Path("pipe.raw"), zero = folder_.Path("zero.raw");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  ASSERT_EQ(symlink("/dev/zero", zero.c_str()), 0);
  ASSERT_EQ(mkdir(folder_.Path("d.raw").c_str(), 0700), 0);
  const std::string out = "--out=" + folder_.Path("h.npy"), shape = "--shape=2",
                    dtype = "--dtype=FP16";
  ExpectFailures(
      1,
      {{{"forward", "--in", in, out}, in + ": no tensor 'g'; it holds e, x"},
       {{"forward", "--in", in, "--g=:up", out}, in + ": no tensor 'up'; it holds e, x"},
       {{"forward", "--in", npy, out},
        npy + ": a .npy file holds one tensor without a name; 'e' is none"},
       {{"forward", "--in", raw, shape, dtype, out},
        raw + ": it has 7 bytes; 2 tensors of shape [2] of FP16 need 8"},
       {{"forward", "--in", raw, "--g", npy, shape, dtype, out},
        raw + ": it has 7 bytes; a tensor of shape [2] of FP16 needs 4"},
       {{"forward", "--in", raw, "--shape=0,4", dtype, out},
        raw + ": it has 7 bytes; 2 tensors of shape [0,4] of FP16 need 0"},
       {{"forward", "--in", pipe, shape, dtype, out}, pipe + ": not a regular file"},
       {{"forward", "--in", zero, shape, dtype, out}, zero + ": not a regular file"},
       {{"forward", "--in", folder_.Path("d.raw"), shape, dtype, out},
        folder_.Path("d.raw") + ": not a regular file"},
       {{"backward", "--in", all, out},
        folder_.Path("h.npy") +
            ": a .npy file holds one tensor, not 3; a .safetensors file holds several"},
       {{"backward", "--in", all, "--out", all}, all + ": exists already; --overwrite replaces it"},
       {{"backward", "--dw", npy, "--in", all, "--out=-"},
        "the inputs are of several kinds, .npy and .safetensors; results in a folder or on "
        "stdout take the kind of all; --out=FILE names another"},
       {{"backward", "--dw", npy, "--e", npy, "--g", npy, "--out=-"},
        "stdout: a .npy file holds one tensor, not 3; a .safetensors file holds several"}});
}

TEST_F(CliInputsTest, CheckTellsTheLargestErrors) {
  FakeServer server(Echo);
  // SiLU(e) = e for large e. So an echo of e is h if g is 1.
  const std::string in = folder_.Write(
      "in.raw", std::string("\x00\x64\x00\x68", 4) + std::string("\x00\x3c\x00\x3c", 4));
  for (const bool is_json : {false, true}) {
    std::vector<std::string> arguments = {
        "forward", "--server", server.address(),      "--in",       in, "--shape=2", "--dtype=fp16",
        "--check", "--out",    folder_.Path("h.npy"), "--overwrite"};
    if (is_json) arguments.emplace_back("--json");
    const Result run = Swiglu(arguments);
    EXPECT_EQ(run.code, 0) << run.err;
    if (is_json) {
      EXPECT_EQ(nlohmann::json::parse(run.out)["largest_error_ulp"], (nlohmann::json{{"h", 0.0}}));
    } else {
      EXPECT_THAT(run.out, MatchesRegex("forward FP16 \\[2\\]: .* GB/s, largest error: h 0 ulp\n"));
    }
  }
}

TEST_F(CliInputsTest, CheckFindsAWrongResultAndWritesNone) {
  FakeServer server(Echo);
  // The server echoes e, which is right for 1024 and wrong for 1.
  const std::string e = folder_.Write("e.raw", std::string("\x00\x64\x00\x64\x00\x64\x00\x3c", 8));
  const std::string g = folder_.Write("g.raw", std::string("\x00\x3c\x00\x3c\x00\x3c\x00\x3c", 8));
  const Result run =
      Swiglu({"forward", "--server", server.address(), "--e", e, "--g", g, "--shape=2,2",
              "--dtype=fp16", "--check", "--out", folder_.Path("h.raw")});
  EXPECT_EQ(run.code, 4);
  EXPECT_EQ(run.out, "");
  EXPECT_EQ(run.err, "swiglu: wrong result: h[1,1] is 1, want 0.730957031 (error 551 ulp)\n");
  EXPECT_EQ(folder_.NumFiles(), 2) << "only the inputs";
}

}  // namespace
}  // namespace swiglu
