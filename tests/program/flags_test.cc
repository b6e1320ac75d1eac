// SPDX-License-Identifier: Apache-2.0
//
// The command line: every default, every flag with good and bad values, and the sentences.
#include "server/flags.h"

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <initializer_list>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "gtest/gtest.h"
#include "server/base/memory_limit.h"
#include "server/log/log.h"
#include "version/version.h"

namespace swiglu::server {
namespace {

std::variant<Flags, EarlyExit> Parse(std::initializer_list<const char*> arguments) {
  std::vector<const char*> argv = {"swiglu-server"};
  argv.insert(argv.end(), arguments);
  return ParseFlags(static_cast<int>(argv.size()), argv.data());
}

Flags Good(std::initializer_list<const char*> arguments) {
  const std::variant<Flags, EarlyExit> parsed = Parse(arguments);
  if (const EarlyExit* exit = std::get_if<EarlyExit>(&parsed)) {
    ADD_FAILURE() << exit->text;
    return {};
  }
  return std::get<Flags>(parsed);
}

// The sentence of a mistake.
std::string Bad(std::initializer_list<const char*> arguments) {
  const std::variant<Flags, EarlyExit> parsed = Parse(arguments);
  const EarlyExit* exit = std::get_if<EarlyExit>(&parsed);
  if (exit == nullptr) return "no mistake";
  EXPECT_EQ(exit->code, 2);
  EXPECT_EQ(exit->text.find('\n'), exit->text.size() - 1) << "not one line: " << exit->text;
  return exit->text.substr(0, exit->text.size() - 1);
}

TEST(FlagsTest, DefaultsAreTheDocumentedOnes) {
  const Flags flags = Good({});
  EXPECT_EQ(flags.grpc_address, "127.0.0.1:8001");
  EXPECT_EQ(flags.metrics_address, "127.0.0.1:8002");
  EXPECT_EQ(flags.device, DeviceKind::kAuto);
  EXPECT_TRUE(flags.devices.empty());
  EXPECT_EQ(flags.lanes_per_device, 0);
  EXPECT_GE(flags.io_threads, 1);
  EXPECT_LE(flags.io_threads, 8);
  EXPECT_EQ(flags.memory_budget_bytes, MemoryLimitBytes() / 4);
  EXPECT_EQ(flags.max_request_bytes, 2147483647);
  EXPECT_EQ(flags.max_queued_requests, 4096);
  EXPECT_EQ(flags.max_queue_delay, absl::ZeroDuration());
  EXPECT_EQ(flags.stall_timeout, absl::Seconds(30));
  EXPECT_EQ(flags.max_connections, 4096);
  EXPECT_EQ(flags.unix_socket_mode, 0600);
  EXPECT_EQ(flags.max_connection_age, absl::ZeroDuration());
  EXPECT_EQ(flags.max_connection_age_grace, absl::Minutes(5));
  EXPECT_EQ(flags.keepalive_time, absl::Seconds(30));
  EXPECT_EQ(flags.keepalive_timeout, absl::Seconds(30));
  EXPECT_EQ(flags.min_ping_interval, absl::Seconds(10));
  EXPECT_EQ(flags.max_metadata_bytes, 32768);
  EXPECT_FALSE(flags.reflection);
  EXPECT_EQ(flags.drain_delay, absl::ZeroDuration());
  EXPECT_EQ(flags.drain_timeout, absl::Seconds(30));
  EXPECT_EQ(flags.log_level, "info");
  EXPECT_EQ(flags.log_format, "text");
  EXPECT_TRUE(flags.log_peers);
  EXPECT_FALSE(flags.health.has_value());
}

TEST(FlagsTest, EveryFlagIsRead) {
  const Flags flags = Good({"--grpc_address=unix:/run/swiglu.sock",
                            "--metrics_address=[::1]:0",
                            "--device=cuda",
                            "--devices=3,0",
                            "--lanes_per_device=4",
                            "--io_threads=8",
                            "--memory_budget_bytes=2GiB",
                            "--max_request_bytes=64MiB",
                            "--max_queued_requests=7",
                            "--max_queue_delay=2ms",
                            "--stall_timeout=5s",
                            "--max_connections=9",
                            "--unix_socket_mode=0660",
                            "--max_connection_age=1h",
                            "--max_connection_age_grace=10s",
                            "--keepalive_time=20s",
                            "--keepalive_timeout=3s",
                            "--min_ping_interval=500ms",
                            "--max_metadata_bytes=64KiB",
                            "--reflection=on",
                            "--drain_delay=1m30s",
                            "--drain_timeout=500ms",
                            "--log_level=warning",
                            "--log_format=json",
                            "--log_peers=off",
                            "--health=liveness"});
  EXPECT_EQ(flags.grpc_address, "unix:/run/swiglu.sock");
  EXPECT_EQ(flags.metrics_address, "[::1]:0");
  EXPECT_EQ(flags.device, DeviceKind::kCuda);
  EXPECT_EQ(flags.devices, (std::vector<int>{3, 0}));
  EXPECT_EQ(flags.lanes_per_device, 4);
  EXPECT_EQ(flags.io_threads, 8);
  EXPECT_EQ(flags.memory_budget_bytes, int64_t{2} << 30);
  EXPECT_EQ(flags.max_request_bytes, 64 << 20);
  EXPECT_EQ(flags.max_queued_requests, 7);
  EXPECT_EQ(flags.max_queue_delay, absl::Milliseconds(2));
  EXPECT_EQ(flags.stall_timeout, absl::Seconds(5));
  EXPECT_EQ(flags.max_connections, 9);
  EXPECT_EQ(flags.unix_socket_mode, 0660);
  EXPECT_EQ(flags.max_connection_age, absl::Hours(1));
  EXPECT_EQ(flags.max_connection_age_grace, absl::Seconds(10));
  EXPECT_EQ(flags.keepalive_time, absl::Seconds(20));
  EXPECT_EQ(flags.keepalive_timeout, absl::Seconds(3));
  EXPECT_EQ(flags.min_ping_interval, absl::Milliseconds(500));
  EXPECT_EQ(flags.max_metadata_bytes, 65536);
  EXPECT_TRUE(flags.reflection);
  EXPECT_EQ(flags.drain_delay, absl::Seconds(90));
  EXPECT_EQ(flags.drain_timeout, absl::Milliseconds(500));
  EXPECT_EQ(flags.log_level, "warning");
  EXPECT_EQ(flags.log_format, "json");
  EXPECT_FALSE(flags.log_peers);
  EXPECT_EQ(flags.health, "liveness");
}

TEST(FlagsTest, ValueMayBeTheNextArgument) {
  const Flags flags = Good({"--io_threads", "3", "--metrics_address", "", "--device", "cpu"});
  EXPECT_EQ(flags.io_threads, 3);
  EXPECT_EQ(flags.metrics_address, "");
  EXPECT_EQ(flags.device, DeviceKind::kCpu);
}

TEST(FlagsTest, LastValueOfARepeatedFlagCounts) {
  EXPECT_EQ(Good({"--io_threads=3", "--io_threads=5"}).io_threads, 5);
}

TEST(FlagsTest, EachParsingStartsFromTheDefaults) {
  EXPECT_EQ(Good({"--max_queued_requests=9", "--health=x"}).max_queued_requests, 9);
  EXPECT_FALSE(Good({}).health.has_value());
  Bad({"--max_queued_requests=10", "--io_threads=0"});
  EXPECT_EQ(Good({}).max_queued_requests, 4096);
}

TEST(FlagsTest, HealthTakesAnOptionalService) {
  EXPECT_EQ(Good({"--health"}).health, "");
  EXPECT_EQ(Good({"--health="}).health, "");
  // The next flag is not its value.
  const Flags flags = Good({"--health", "--grpc_address=localhost:1"});
  EXPECT_EQ(flags.health, "");
  EXPECT_EQ(flags.grpc_address, "localhost:1");
  EXPECT_EQ(Bad({"--health", "liveness"}),
            "swiglu-server: unexpected argument 'liveness': only flags are taken, see --help");
}

TEST(FlagsTest, PeersAreWaitedForAsLongAsCallersUnlessToldOtherwise) {
  EXPECT_EQ(Good({"--stall_timeout=5m"}).keepalive_timeout, absl::Minutes(5));
  EXPECT_EQ(Good({"--stall_timeout=5m", "--keepalive_timeout=7s"}).keepalive_timeout,
            absl::Seconds(7));
}

TEST(FlagsTest, ReflectionIsOnWithoutAValue) {
  const Flags flags = Good({"--reflection", "--grpc_address=localhost:1"});
  EXPECT_TRUE(flags.reflection);
  EXPECT_EQ(flags.grpc_address, "localhost:1");
  EXPECT_FALSE(Good({"--reflection", "--reflection=off"}).reflection);
}

TEST(FlagsTest, EdgesOfEveryRangeAreValid) {
  Good({"--lanes_per_device=0", "--io_threads=1", "--memory_budget_bytes=2",
        "--max_request_bytes=1", "--max_queued_requests=1", "--max_queue_delay=0",
        "--stall_timeout=1s", "--max_connection_age=0", "--max_connection_age_grace=1s",
        "--keepalive_time=0", "--keepalive_timeout=0", "--min_ping_interval=1ms",
        "--max_metadata_bytes=1KiB", "--max_connections=1", "--unix_socket_mode=0",
        "--drain_delay=0", "--drain_timeout=0s", "--devices=0"});
  Good({"--lanes_per_device=64", "--io_threads=256", "--memory_budget_bytes=9223372036854775807",
        "--max_request_bytes=2147483647", "--max_queued_requests=1000000", "--max_queue_delay=10s",
        "--stall_timeout=24h", "--max_connection_age=480h", "--max_connection_age_grace=480h",
        "--keepalive_time=480h", "--keepalive_timeout=480h", "--min_ping_interval=480h",
        "--max_metadata_bytes=256KiB", "--max_connections=1000000", "--unix_socket_mode=0777",
        "--grpc_address=h:65535", "--drain_delay=24h", "--drain_timeout=24h", "--devices=all"});
  for (const char* level : {"debug", "info", "warning", "error"}) {
    EXPECT_EQ(Good({"--log_level", level}).log_level, level);
    EXPECT_TRUE(logging::SetLevel(level));
  }
  for (const char* format : {"json", "text"}) {
    EXPECT_EQ(Good({"--log_format", format}).log_format, format);
    EXPECT_TRUE(logging::SetFormat(format));
  }
  logging::SetLevel("info");
}

TEST(FlagsTest, EveryBadValueIsNamedWithWhatIsValid) {
  const struct {
    const char* flag;
    std::vector<const char*> values;
    const char* valid;
  } kCases[] = {
      {"grpc_address",
       {"", "8001", ":8001", "localhost", "localhost:", "localhost:70000", "localhost:-1",
        "localhost:x", "::1:8001", "[]:1", "unix:"},
       "HOST:PORT or unix:/path"},
      {"metrics_address", {"8002", ":8002", "h:65536", "h:+1", "unix:/x"}, "HOST:PORT or nothing"},
      {"device", {"", "gpu", "CPU"}, "auto, cpu or cuda"},
      {"devices",
       {"", "-1", "0,", "a", "0,0", "0 1"},
       "all or different numbers from 0 on, as in 0,1"},
      {"lanes_per_device", {"", "-1", "65", "two", "1.5"}, "a number from 0 to 64"},
      {"io_threads", {"0", "257", "-3", "99999999999", ""}, "a number from 1 to 256"},
      {"memory_budget_bytes",
       {"0", "1", "-1", "", "1MB", "GiB", "9223372036854775808"},
       "2 or more bytes, as in 1073741824, 512MiB or 2GiB"},
      {"max_request_bytes",
       {"0", "2GiB", "2147483648", "x"},
       "1 to 2147483647 bytes, as in 1048576 or 64MiB"},
      {"max_queued_requests", {"0", "-1", "1000001", "many"}, "a number from 1 to 1000000"},
      {"max_queue_delay", {"-1us", "5", "11s"}, "a time from 0s to 10s, as in 500us or 2ms"},
      {"max_connections", {"0", "-1", "1000001", "many"}, "a number from 1 to 1000000"},
      {"unix_socket_mode",
       {"", "8", "0668", "1000", "01000", "07770", "-600", "-0", "+7", "rw"},
       "an octal number from 0000 to 0777, as in 0660"},
      {"stall_timeout", {"0", "999ms", "25h"}, "a time from 1s to 24h, as in 30s or 5m"},
      {"max_connection_age",
       {"-1s", "999ms", "481h", "inf", ""},
       "0 or a time from 1s to 480h, as in 5m or 1h"},
      {"max_connection_age_grace", {"0", "481h"}, "a time from 1s to 480h, as in 30s or 5m"},
      {"keepalive_time", {"1ms", "481h"}, "0 or a time from 1s to 480h, as in 30s or 5m"},
      {"keepalive_timeout", {"-1s", "481h"}, "0 or a time from 1s to 480h, as in 30s or 5m"},
      {"min_ping_interval", {"0", "999us", "481h"}, "a time from 1ms to 480h, as in 10s or 1m"},
      {"max_metadata_bytes",
       {"0", "1023", "257KiB", "big"},
       "1KiB to 256KiB, as in 16384 or 64KiB"},
      {"reflection", {"true", "yes"}, "on or off; nothing is on"},
      {"drain_delay",
       {"-1s", "5", "", "soon", "inf", "25h"},
       "a time from 0s to 24h, as in 500ms or 1m30s"},
      {"drain_timeout", {"-1s", "5", "inf"}, "a time from 0s to 24h, as in 500ms or 1m30s"},
      {"log_level", {"", "loud", "INFO"}, "debug, info, warning or error"},
      {"log_format", {"", "xml"}, "text or json"},
      {"log_peers", {"", "true", "ON"}, "on or off"},
      {"config", {""}, "the path of a file"},
      {"version", {"maybe"}, "nothing, true or false"},
      {"help", {"please"}, "nothing, true or false"},
  };
  for (const auto& test : kCases) {
    for (const char* value : test.values) {
      EXPECT_EQ(Bad({absl::StrCat("--", test.flag, "=", value).c_str()}),
                absl::StrCat("swiglu-server: --", test.flag, "=", value, ": want ", test.valid));
    }
  }
}

TEST(FlagsTest, UnknownFlagsAndArgumentsAreNamed) {
  EXPECT_EQ(Bad({"--port=1"}), "swiglu-server: unknown flag '--port', see --help");
  EXPECT_EQ(Bad({"--nohelp"}), "swiglu-server: unknown flag '--nohelp', see --help");
  EXPECT_EQ(Bad({"--flagfile=x"}), "swiglu-server: unknown flag '--flagfile', see --help");
  for (const char* argument : {"serve", "-h", "--", "-", ""}) {
    EXPECT_EQ(Bad({argument}), absl::StrCat("swiglu-server: unexpected argument '", argument,
                                            "': only flags are taken, see --help"));
  }
}

TEST(FlagsTest, TheFlagThatWasMeantIsNamed) {
  EXPECT_EQ(
      Bad({"--grpc_adress=127.0.0.1:1"}),
      "swiglu-server: unknown flag '--grpc_adress', did you mean '--grpc_address'? See --help");
}

TEST(FlagsTest, MissingValueIsAMistake) {
  EXPECT_EQ(Bad({"--io_threads"}),
            "swiglu-server: --io_threads needs a value: want a number from 1 to 256");
}

TEST(FlagsTest, OddTextIsShownOnOneLineAndCut) {
  EXPECT_EQ(Bad({"--log_level=a\nb\x1b"}),
            "swiglu-server: --log_level=a\\nb\\u001b: want debug, info, warning or error");
  EXPECT_EQ(Bad({("--log_level=" + std::string(201, 'x')).c_str()}),
            "swiglu-server: --log_level=" + std::string(200, 'x') +
                "...: want debug, info, warning or error");
  EXPECT_EQ(Bad({("--log_level=" + std::string(200, 'x')).c_str()}),
            "swiglu-server: --log_level=" + std::string(200, 'x') +
                ": want debug, info, warning or error");
}

TEST(FlagsTest, VersionIsOneLineAndExitsWithZero) {
  const EarlyExit exit = std::get<EarlyExit>(Parse({"--version"}));
  EXPECT_EQ(exit.code, 0);
  EXPECT_EQ(exit.text, absl::StrCat("swiglu-server ", kVersion, " (commit ", kCommit, ", cuda ",
                                    kCudaVersion, ")\n"));
}

std::vector<std::string> Described(const std::vector<MlpSpec>& mlps) {
  std::vector<std::string> described;
  for (const MlpSpec& mlp : mlps) {
    const MlpLayerRange layers = mlp.layers.value_or(MlpLayerRange{});
    described.push_back(absl::StrCat(mlp.name, " ", mlp.path, " ", layers.begin, ":", layers.end));
  }
  return described;
}

TEST(FlagsTest, TakesSeveralMlps) {
  EXPECT_TRUE(Good({}).mlps.empty());
  EXPECT_EQ(Good({}).mlp_max_batch_tokens, 512);
  const Flags flags = Good({"--mlp=a=/x=1", "--mlp_layers=b=2:5", "--mlp=b=y,c=z", "--mlp=a=/w",
                            "--mlp_max_batch_tokens=64"});
  EXPECT_EQ(Described(flags.mlps), (std::vector<std::string>{"a /w 0:0", "b y 2:5", "c z 0:0"}));
  EXPECT_EQ(flags.mlp_max_batch_tokens, 64);
  EXPECT_FALSE(flags.mlp_control);
  EXPECT_TRUE(Good({"--mlp_control"}).mlp_control);
  EXPECT_TRUE(Good({"--mlp_control=on"}).mlp_control);
  EXPECT_FALSE(Good({"--mlp_control=off"}).mlp_control);
  EXPECT_EQ(std::get<EarlyExit>(Parse({"--mlp_control=yes"})).text,
            "swiglu-server: --mlp_control=yes: want on or off; nothing is on\n");
}

TEST(FlagsTest, RefusesMlpsThatAreNone) {
  for (const char* text : {"", "a", "A=x", "a=", "a=x,", "=x", "a=x,b"}) {
    const std::string argument = absl::StrCat("--mlp=", text);
    const EarlyExit exit = std::get<EarlyExit>(Parse({argument.c_str()}));
    EXPECT_EQ(exit.code, 2);
    EXPECT_EQ(exit.text, absl::StrCat("swiglu-server: --mlp=", text,
                                      ": want NAME=PATH[,NAME=PATH]..., a NAME of a-z, 0-9 and "
                                      "_\n"));
  }
  EXPECT_EQ(std::get<EarlyExit>(Parse({"--mlp=a=x", "--mlp_layers=b=0:1"})).text,
            "swiglu-server: --mlp_layers names the MLP 'b', which no --mlp names\n");
  EXPECT_EQ(std::get<EarlyExit>(Parse({"--mlp=a=x", "--mlp_layers=a=1:1"})).text,
            "swiglu-server: --mlp_layers=a=1:1: want NAME=a:b[,NAME=a:b]...\n");
  for (const auto& [one, other] :
       {std::pair("--mlp=a=x", "--mlp=a_0_forward=y"), {"--mlp=a_0_forward=y", "--mlp=a=x"}}) {
    const EarlyExit exit = std::get<EarlyExit>(Parse({one, other}));
    EXPECT_EQ(exit.code, 2);
    EXPECT_EQ(exit.text,
              "swiglu-server: --mlp: the MLP 'a_0_forward' would have the name of a model of the "
              "MLP 'a'; give one of them another name\n");
  }
}

TEST(FlagsTest, HelpNamesEveryFlagWithItsDefault) {
  const EarlyExit exit = std::get<EarlyExit>(Parse({"--io_threads=7", "--help"}));
  EXPECT_EQ(exit.code, 0);
  for (const char* line : {"--grpc_address=127.0.0.1:8001\n",
                           "--metrics_address=127.0.0.1:8002\n",
                           "--device=auto\n",
                           "--devices=all\n",
                           "--lanes_per_device=0\n",
                           "--io_threads=",
                           "--memory_budget_bytes=",
                           "--max_request_bytes=2147483647\n",
                           "--max_queued_requests=4096\n",
                           "--max_queue_delay=0\n",
                           "--stall_timeout=30s\n",
                           "--max_connections=4096\n",
                           "--unix_socket_mode=0600\n",
                           "--max_connection_age=0\n",
                           "--max_connection_age_grace=5m\n",
                           "--keepalive_time=30s\n",
                           "--keepalive_timeout=0\n",
                           "--min_ping_interval=10s\n",
                           "--max_metadata_bytes=32KiB\n",
                           "--reflection=off\n",
                           "--drain_delay=0\n",
                           "--drain_timeout=30s\n",
                           "--log_level=info\n",
                           "--log_format=text\n",
                           "--log_peers=on\n",
                           "--config\n",
                           "--health\n",
                           "--version\n",
                           "--help\n"}) {
    EXPECT_TRUE(absl::StrContains(exit.text, absl::StrCat("  ", line))) << line << " is not in\n"
                                                                        << exit.text;
  }
}

// What the flags are with this environment, whose names begin with SWIGLU_SERVER_, and this file.
std::variant<Flags, EarlyExit> ParseWith(const std::map<std::string, std::string>& environment,
                                         const std::string& file,
                                         std::vector<std::string> arguments) {
  const std::string path = absl::StrCat(testing::TempDir(), "/flags_test.conf");
  std::ofstream(path) << file;
  arguments.insert(arguments.begin(), {"swiglu-server", absl::StrCat("--config=", path)});
  std::vector<const char*> argv;
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  const Environment variables = [&environment](absl::string_view name) {
    const auto found = absl::ConsumePrefix(&name, "SWIGLU_SERVER_")
                           ? environment.find(std::string(name))
                           : environment.end();
    return found == environment.end() ? nullptr : found->second.c_str();
  };
  const auto parsed = ParseFlags(static_cast<int>(argv.size()), argv.data(), variables);
  std::remove(path.c_str());
  return parsed;
}

TEST(FlagsTest, AddsUpTheMlpsOfAllSources) {
  const auto parsed = ParseWith({{"MLP", "a=1,b=2"}}, "mlp = a=3,c=4\n", {"--mlp=b=5"});
  EXPECT_EQ(Described(std::get<Flags>(parsed).mlps),
            (std::vector<std::string>{"b 5 0:0", "a 1 0:0", "c 4 0:0"}));
}

TEST(FlagSourcesTest, EachCountsBeforeTheNext) {
  const std::string file = "io_threads = 2\nlanes_per_device = 2\nmax_connections = 2\n";
  const Flags flags = std::get<Flags>(
      ParseWith({{"IO_THREADS", "3"}, {"LANES_PER_DEVICE", "3"}}, file, {"--io_threads=4"}));
  EXPECT_EQ(flags.io_threads, 4);        // of the command line
  EXPECT_EQ(flags.lanes_per_device, 3);  // of the environment
  EXPECT_EQ(flags.max_connections, 2);   // of the file
  EXPECT_EQ(flags.max_queued_requests, 4096);
}

TEST(FlagSourcesTest, AMistakeIsOneEvenWhereAnotherSourceCounts) {
  const EarlyExit variable =
      std::get<EarlyExit>(ParseWith({{"IO_THREADS", "0"}}, "io_threads = 2\n", {"--io_threads=4"}));
  EXPECT_EQ(variable.code, 2);
  EXPECT_EQ(variable.text,
            "swiglu-server: SWIGLU_SERVER_IO_THREADS=0: want a number from 1 to 256\n");
  const EarlyExit file = std::get<EarlyExit>(ParseWith({}, "io_threads = 0\n", {"--io_threads=4"}));
  EXPECT_EQ(file.code, 2);
  EXPECT_EQ(file.text,
            absl::StrCat("swiglu-server: ", testing::TempDir(),
                         "/flags_test.conf: io_threads=0: want a number from 1 to 256\n"));
}

TEST(FlagSourcesTest, SomeFlagsAreForTheCommandLineAlone) {
  const std::map<std::string, std::string> environment = {
      {"HELP", "x"}, {"VERSION", "x"}, {"HEALTH", "x"}, {"CONFIG", "/nonexistent"}};
  const std::variant<Flags, EarlyExit> parsed = ParseWith(environment, "", {});
  ASSERT_TRUE(std::holds_alternative<Flags>(parsed)) << std::get<EarlyExit>(parsed).text;
  EXPECT_FALSE(std::get<Flags>(parsed).health.has_value());
  for (const char* name : {"help", "version", "health", "config"}) {
    EXPECT_TRUE(std::holds_alternative<EarlyExit>(ParseWith({}, absl::StrCat(name, "=true"), {})));
  }
}

TEST(FlagSourcesTest, HelpAndVersionReadNoOther) {
  for (const char* order : {"--help", "--version"}) {
    EXPECT_EQ(std::get<EarlyExit>(ParseWith({{"IO_THREADS", "0"}}, "x = 1\n", {order})).code, 0);
  }
}

TEST(FlagSourcesTest, HelpTellsOfThem) {
  const EarlyExit help = std::get<EarlyExit>(Parse({"--help"}));
  EXPECT_TRUE(absl::StrContains(help.text, "  --config\n"));
  EXPECT_TRUE(absl::StrContains(help.text, "SWIGLU_SERVER_IO_THREADS"));
}

TEST(FlagsTest, MistakesComeBeforeHelp) {
  EXPECT_EQ(Bad({"--help", "--io_threads=0"}),
            "swiglu-server: --io_threads=0: want a number from 1 to 256");
}

}  // namespace
}  // namespace swiglu::server
