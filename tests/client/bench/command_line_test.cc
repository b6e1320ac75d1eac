// SPDX-License-Identifier: Apache-2.0
//
// What the command line of swiglu-bench takes, and the sentences about what it does not.
#include "client/bench/command_line.h"

#include "absl/strings/str_cat.h"
#include "client/bench/shared_region.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace swiglu::bench {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<CommandLine> Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "swiglu-bench");
  return ParseCommandLine(static_cast<int>(arguments.size()), arguments.data());
}

TEST(CommandLineTest, HasDefaults) {
  const CommandLine command = Parse({}).value();
  EXPECT_EQ(command.action, Action::kLoad);
  EXPECT_EQ(command.client, ClientKind::kRaw);
  EXPECT_EQ(command.load.server, "127.0.0.1:8001");
  EXPECT_EQ(command.load.model->name(), "swiglu_forward_fp16");
  EXPECT_EQ(FormatByteMix(command.load.request_bytes), "64KiB");
  EXPECT_EQ(command.load.shared_memory, SharedMemory::kNone);
  EXPECT_FALSE(command.check);
  EXPECT_FALSE(command.mlp.has_value());
  EXPECT_FALSE(command.load.spin);
  EXPECT_EQ(command.load.num_connections, 8);
  EXPECT_EQ(command.load.num_in_flight, 16);
  EXPECT_GE(command.load.num_threads, 1);
  EXPECT_TRUE(command.load.announce_size);
  EXPECT_EQ(command.pace.rate, 0);
  EXPECT_EQ(command.pace.duration, std::chrono::seconds(5));
  EXPECT_EQ(command.pace.warm_up, std::chrono::seconds(1));
  EXPECT_FALSE(command.json);
}

TEST(CommandLineTest, TakesValuesInBothForms) {
  const CommandLine command =
      Parse({"--server", "unix:/tmp/s", "--rate=2.5", "--arrivals=constant", "--json",
             "--announce_size=false", "--request_bytes=1KiB*3,2KiB", "--duration=250ms"})
          .value();
  EXPECT_EQ(command.load.server, "unix:/tmp/s");
  EXPECT_EQ(command.pace.rate, 2.5);
  EXPECT_EQ(command.pace.arrivals, Arrivals::kConstant);
  EXPECT_TRUE(command.json);
  EXPECT_FALSE(command.load.announce_size);
  EXPECT_EQ(command.load.request_bytes.size(), 2u);
  EXPECT_EQ(command.pace.duration, std::chrono::milliseconds(250));
}

TEST(CommandLineTest, HasNoMoreConnectionsOrThreadsThanRequestsInFlight) {
  const CommandLine command = Parse({"--in_flight=2", "--threads=16"}).value();
  EXPECT_EQ(command.load.num_connections, 2);
  EXPECT_EQ(command.load.num_threads, 2);
  // But the library may send a request over several.
  EXPECT_EQ(Parse({"--in_flight=2", "--client=library"})->load.num_connections, 8);
}

TEST(CommandLineTest, OpenLoopIsBoundByItsOwnLimit) {
  const CommandLine command = Parse({"--rate=10", "--in_flight=2", "--max_outstanding=99"}).value();
  EXPECT_EQ(command.load.num_in_flight, 99);
}

TEST(CommandLineTest, TensorsMayBeInSharedMemory) {
  const CommandLine command = Parse({"--shared_memory=system", "--check"}).value();
  EXPECT_EQ(command.load.shared_memory, SharedMemory::kSystem);
  EXPECT_TRUE(command.check);
  // No message carries them.
  EXPECT_TRUE(Parse({"--shared_memory=system", "--request_bytes=2GiB"}).ok());
  const auto cuda = Parse({"--shared_memory=cuda"});
  EXPECT_EQ(cuda.ok(), kHasCuda);
  if (!kHasCuda) {
    EXPECT_EQ(cuda.status().message(),
              "--shared_memory=cuda takes a swiglu-bench that is built with CUDA; see "
              "swiglu-bench --help");
  }
}

TEST(CommandLineTest, TheLibraryTakesSeveralServersAndItsOptions) {
  const CommandLine command = Parse({"--client=library", "--server=a:1,unix:/b", "--max_attempts=7",
                                     "--coalesce_bytes=1KiB", "--hedge_delay=5ms", "--streams=off"})
                                  .value();
  EXPECT_EQ(command.load.server, "a:1,unix:/b");
  EXPECT_EQ(command.load.max_attempts, 7);
  EXPECT_EQ(command.load.coalesce_bytes, 1024);
  EXPECT_EQ(command.load.hedge_delay, absl::Milliseconds(5));
  EXPECT_FALSE(command.load.streams);
  const CommandLine other = Parse({"--client=library"}).value();
  EXPECT_EQ(other.load.max_attempts, 1);
  EXPECT_EQ(other.load.coalesce_bytes, client::Options().coalesce_bytes);
  EXPECT_EQ(other.load.hedge_delay, absl::ZeroDuration());
  EXPECT_TRUE(other.load.streams);
  EXPECT_EQ(Parse({"--client=library", "--coalesce_bytes=0"})->load.coalesce_bytes, 0);
}

TEST(CommandLineTest, CallersShareTheRequestsOfTheLibrary) {
  const CommandLine command = Parse({"--client=library", "--callers=4", "--in_flight=64"}).value();
  EXPECT_EQ(command.load.num_callers, 4);
  EXPECT_EQ(Parse({"--client=library", "--callers=4", "--mlp=m:0"})->load.num_callers, 4);
  EXPECT_EQ(command.load.num_in_flight, 64);
  EXPECT_EQ(Parse({"--client=library"})->load.num_callers, 0);
  EXPECT_TRUE(Parse({"--client=library", "--callers=16"}).ok());
  EXPECT_TRUE(Parse({"--client=library", "--callers=0", "--mlp=m:0", "--spin"}).ok());
}

TEST(CommandLineTest, AsksForAnMlp) {
  const CommandLine command = Parse({"--mlp=llama:3"}).value();
  ASSERT_TRUE(command.mlp.has_value());
  EXPECT_EQ(command.mlp->name, "llama");
  EXPECT_EQ(command.mlp->first_layer, 3);
  EXPECT_EQ(command.mlp->num_layers, 1);
  EXPECT_FALSE(command.mlp->is_backward);
  EXPECT_EQ(FormatByteMix(command.load.tokens), "1");
  // Only the server knows the rest.
  EXPECT_EQ(command.load.model, nullptr);
  EXPECT_THAT(command.load.request_bytes, ::testing::IsEmpty());
  const CommandLine layers =
      Parse({"--mlp=m:0", "--op=backward", "--layers=61", "--tokens=8*9,512", "--spin"}).value();
  EXPECT_TRUE(layers.mlp->is_backward);
  EXPECT_EQ(layers.mlp->num_layers, 61);
  EXPECT_EQ(FormatByteMix(layers.load.tokens), "8*9,512");
  EXPECT_TRUE(layers.load.spin);
}

TEST(CommandLineTest, ServesTheEcho) {
  const CommandLine command =
      Parse({"--serve_echo=127.0.0.1:0", "--echo_threads=2", "--echo_queues=shared",
             "--echo_model=swiglu_backward_bf16", "--echo_bytes=1KiB,4MiB"})
          .value();
  EXPECT_EQ(command.action, Action::kServeEcho);
  EXPECT_EQ(command.echo.address, "127.0.0.1:0");
  EXPECT_EQ(command.echo.num_threads, 2);
  EXPECT_EQ(command.echo.queues, EchoQueues::kShared);
  EXPECT_EQ(command.echo.model->name(), "swiglu_backward_bf16");
  EXPECT_THAT(command.echo.request_bytes, ::testing::ElementsAre(1024, 4194304));
}

TEST(CommandLineTest, HelpAndVersionEndTheWalk) {
  EXPECT_EQ(Parse({"--help", "--bogus"})->action, Action::kHelp);
  EXPECT_EQ(Parse({"--version"})->action, Action::kVersion);
  EXPECT_THAT(HelpText(), HasSubstr("  --request_bytes=64KiB\n"));
}

constexpr char kLibraryFlags[] =
    "--callers, --coalesce_bytes, --hedge_delay, --max_attempts and --streams take "
    "--client=library";

TEST(CommandLineTest, SaysWhatIsWrong) {
  const std::vector<std::pair<std::vector<const char*>, std::string>> cases = {
      {{"load"}, "unexpected argument 'load'"},
      {{"--bogus"}, "unknown flag '--bogus'"},
      {{"--help=me"}, "--help takes nothing, not 'me'"},
      {{"--rate"}, "--rate needs a value"},
      {{"--server=nowhere"},
       "--server takes HOST:PORT, dns:///NAME:PORT or unix:/path, not 'nowhere'"},
      {{"--model=gelu"}, "--model takes one of the server's six models, not 'gelu'"},
      {{"--client=fast"}, "--client takes raw or library, not 'fast'"},
      {{"--request_bytes=64KiB*0"},
       "--request_bytes takes SIZE[*WEIGHT][,SIZE[*WEIGHT]]..., not '64KiB*0'"},
      {{"--connections=0"}, "--connections takes 1 to 65536, not '0'"},
      {{"--rate=-1"}, "--rate takes 0 to 1000000, not '-1'"},
      {{"--duration=0"}, "--duration takes a time above 0, such as 5s or 500ms, not '0'"},
      {{"--json=perhaps"}, "--json takes true or false, not 'perhaps'"},
      {{"--metrics=unix:/x"}, "--metrics takes HOST:PORT, not 'unix:/x'"},
      {{"--metrics=dns:///x:1"}, "--metrics takes HOST:PORT, not 'dns:///x:1'"},
      {{"--echo_bytes=1KiB*2"}, "--echo_bytes takes SIZE[,SIZE]..., not '1KiB*2'"},
      {{"--request_bytes=3"}, "a request of 3 bytes has no element of 'swiglu_forward_fp16'"},
      {{"--serve_echo=h:1", "--echo_bytes=3"},
       "a request of 3 bytes has no element of 'swiglu_forward_fp16'"},
      {{"--shared_memory=gpu"}, "--shared_memory takes none, system or cuda, not 'gpu'"},
      {{"--mlp=llama"}, "--mlp takes NAME:LAYER, not 'llama'"},
      {{"--mlp=llama:-1"}, "--mlp takes NAME:LAYER, not 'llama:-1'"},
      {{"--mlp=llama:0", "--op=both"}, "--op takes forward or backward, not 'both'"},
      {{"--mlp=llama:0", "--layers=0"}, "--layers takes 1 to 100000, not '0'"},
      {{"--mlp=llama:0", "--tokens=0"},
       "--tokens takes TOKENS[*WEIGHT][,TOKENS[*WEIGHT]]..., not '0'"},
      {{"--op=backward"}, "--op, --layers and --tokens take --mlp"},
      {{"--layers=2"}, "--op, --layers and --tokens take --mlp"},
      {{"--tokens=2"}, "--op, --layers and --tokens take --mlp"},
      // With their default values, too.
      {{"--op=forward"}, "--op, --layers and --tokens take --mlp"},
      {{"--layers=1"}, "--op, --layers and --tokens take --mlp"},
      {{"--tokens=1"}, "--op, --layers and --tokens take --mlp"},
      {{"--model=swiglu_forward_fp16", "--mlp=llama:0"},
       "--mlp goes with --op and --tokens, not with --model, --request_bytes or --sweep"},
      {{"--mlp=llama:0", "--request_bytes=64KiB"},
       "--mlp goes with --op and --tokens, not with --model, --request_bytes or --sweep"},
      {{"--mlp=llama:0", "--model=swiglu_forward_bf16"},
       "--mlp goes with --op and --tokens, not with --model, --request_bytes or --sweep"},
      {{"--mlp=llama:0", "--request_bytes=1KiB"},
       "--mlp goes with --op and --tokens, not with --model, --request_bytes or --sweep"},
      {{"--mlp=llama:0", "--sweep=1KiB"},
       "--mlp goes with --op and --tokens, not with --model, --request_bytes or --sweep"},
      {{"--sweep=1KiB*2"}, "--sweep takes SIZE[,SIZE]..., not '1KiB*2'"},
      {{"--sweep=1KiB,3"}, "a request of 3 bytes has no element of 'swiglu_forward_fp16'"},
      {{"--sweep=1KiB", "--request_bytes=64KiB"}, "--sweep goes without --request_bytes"},
      {{"--sweep=1KiB", "--histogram=x"}, "--histogram takes one load, not --sweep"},
      {{"--plot=x.svg"}, "--plot takes --sweep"},
      {{"--sweep=1KiB", "--plot=x.png"}, "--plot takes a file that ends in .svg, not 'x.png'"},
      {{"--server=a:1,a:1"},
       "--server takes HOST:PORT, dns:///NAME:PORT or unix:/path, not 'a:1,a:1'"},
      {{"--server=a:1,b:1"}, "--client=raw takes one server, not 'a:1,b:1'"},
      {{"--client=library", "--server=a:1,b:1", "--shared_memory=system"},
       "--shared_memory takes one server, not 'a:1,b:1'"},
      {{"--client=library", "--server=a:1,b:1", "--metrics=a:2"},
       "--metrics takes one server, not 'a:1,b:1'"},
      {{"--client=library", "--server=a:1,b:1", "--server_pid=1"},
       "--server_pid takes one server, not 'a:1,b:1'"},
      {{"--coalesce_bytes=64KiB"}, kLibraryFlags},
      {{"--max_attempts=1"}, kLibraryFlags},
      {{"--hedge_delay=5ms"}, kLibraryFlags},
      {{"--streams=on"}, kLibraryFlags},
      {{"--callers=1"}, kLibraryFlags},
      {{"--client=library", "--callers=17"},
       "--callers takes at most the 16 of --in_flight, not 17"},
      {{"--client=library", "--callers=17", "--rate=1", "--max_outstanding=2"},
       "--callers takes at most the 2 of --max_outstanding, not 17"},
      {{"--client=library", "--callers=1", "--spin"},
       "--callers goes without --spin: only calls that block can poll"},
      {{"--client=library", "--max_attempts=0"}, "--max_attempts takes 1 to 100, not '0'"},
      {{"--client=library", "--streams=maybe"}, "--streams takes on or off, not 'maybe'"},
      {{"--client=library", "--hedge_delay=-1ms"},
       "--hedge_delay takes a time, such as 5ms or 0, not '-1ms'"},
      {{"--client=library", "--coalesce_bytes=2MiB"},
       "--coalesce_bytes takes 0 to 128KiB, not '2MiB'"},
      {{"--request_bytes=2GiB"},
       "a request of 2GiB does not fit into a message: it takes --client=library"}};
  for (const auto& [arguments, sentence] : cases) {
    const absl::Status status = Parse(arguments).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << sentence;
    EXPECT_EQ(status.message(), absl::StrCat(sentence, "; see swiglu-bench --help"));
  }
  EXPECT_TRUE(Parse({"--request_bytes=2GiB", "--client=library"}).ok());
}

TEST(CommandLineTest, NamesTheFlagThatWasMeant) {
  EXPECT_EQ(Parse({"--conections=1"}).status().message(),
            "unknown flag '--conections', did you mean '--connections'? See swiglu-bench --help");
}

}  // namespace
}  // namespace swiglu::bench
