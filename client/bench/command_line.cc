// SPDX-License-Identifier: Apache-2.0
//
// The table of flags, and the checks of flags that depend on each other.
#include "client/bench/command_line.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/bench/byte_mix.h"
#include "client/bench/shared_region.h"
#include "client/server_address.h"
#include "server/base/address.h"
#include "server/base/byte_size.h"
#include "server/base/command_line.h"
#include "server/base/completion.h"
#include "server/base/flag_values.h"
#include "server/base/manual_page.h"
#include "version/version.h"

namespace swiglu::bench {
namespace {

using server::Flag;
using server::FlagTraits;
using server::Number;
using server::OneOf;
using server::ReadValue;
using server::Text;
using server::Truth;

// The largest protobuf message, minus what a request has beside its tensors.
constexpr int64_t kMaxRawRequestBytes = (int64_t{1} << 31) - 1 - 512;

constexpr int kMost = 65536;

// As client::Options has it.
constexpr int64_t kMostCoalesceBytes = int64_t{128} << 10;

constexpr absl::Duration kDay = absl::Hours(24);

// The values of the flags, before Complete combines them.
struct Given {
  CommandLine command;
  MlpChoice mlp;
  bool is_mlp = false;
  // Whether the user gave flags that only a load of an MLP takes, or that only one of the six
  // models takes.
  bool has_mlp_flag = false;
  bool has_elementwise_flag = false;
  bool has_request_bytes_flag = false;
  // Whether the user gave flags that only the library takes.
  bool has_library_flag = false;
  int in_flight = 0;
  int max_outstanding = 0;
  int threads = 0;
};

ReadValue TimeFrom(absl::Duration least, Clock::duration* field) {
  return [=](absl::string_view text) {
    absl::Duration time;
    if (!server::Time(&time, least, kDay)(text)) return false;
    *field = absl::ToChronoNanoseconds(time);
    return true;
  };
}

ReadValue Rate(double* field) {
  return [field](absl::string_view text) {
    return absl::SimpleAtod(text, field) && *field >= 0 && *field <= 1e6;
  };
}

// Reads as `read` does, and notes that it did.
ReadValue Noted(bool* was_read, ReadValue read) {
  ReadValue noted = read;
  noted.read = [was_read, read = std::move(read)](absl::string_view text) {
    *was_read = true;
    return read(text);
  };
  return noted;
}

ReadValue ModelOf(const Model** field) {
  ReadValue read = [field](absl::string_view text) {
    *field = FindModel(text);
    return *field != nullptr;
  };
  for (const Model& model : AllModels()) read.words.push_back(model.name());
  return read;
}

ReadValue MlpLayer(Given* given) {
  return [given](absl::string_view text) {
    given->is_mlp = true;
    return ReadMlpLayer(text, &given->mlp);
  };
}

ReadValue Mix(std::vector<WeightedSize>* field) {
  return [field](absl::string_view text) {
    absl::StatusOr<std::vector<WeightedSize>> mix = ParseByteMix(text);
    if (mix.ok()) *field = *std::move(mix);
    return mix.ok();
  };
}

ReadValue Tokens(std::vector<WeightedSize>* field) {
  return [field](absl::string_view text) {
    return Mix(field)(text) && std::all_of(field->begin(), field->end(),
                                           [](const auto& size) { return size.bytes > 0; });
  };
}

bool IsSvg(absl::string_view text) { return absl::EndsWith(text, ".svg"); }

ReadValue Sizes(std::vector<int64_t>* field) {
  return [field](absl::string_view text) {
    const absl::StatusOr<std::vector<WeightedSize>> mix = ParseByteMix(text);
    if (!mix.ok() || absl::StrContains(text, '*')) return false;
    field->clear();
    for (const WeightedSize& size : *mix) field->push_back(size.bytes);
    return true;
  };
}

ReadValue Drawing(std::string* field) {
  ReadValue read = Text(field, IsSvg);
  read.kind = server::ValueKind::kFile;
  return read;
}

// The address of the echo server. The flag also makes the program serve the echo.
ReadValue EchoAddress(CommandLine* command) {
  return [command](absl::string_view text) {
    command->action = Action::kServeEcho;
    command->echo.address = std::string(text);
    return server::IsAddress(text);
  };
}

// Reads a flag without a value that chooses an action.
ReadValue Order(Action action, Action* field) { return OneOf<Action>(field, {{"true", action}}); }

// The same for a flag that takes a word.
ReadValue OrderOf(const char* word, Action action, Action* field) {
  return OneOf<Action>(field, {{word, action}});
}

bool IsServer(absl::string_view text) { return client::CheckAddress(text).ok(); }

bool AreServers(absl::string_view text) { return client::SplitAddresses(text).ok(); }

bool IsPage(absl::string_view text) {
  return !absl::StartsWith(text, "unix:") && !client::IsGroup(text) && IsServer(text);
}

// Every flag, in the order of --help.
std::vector<Flag> FlagsInto(Given* given) {
  CommandLine* const command = &given->command;
  LoadOptions* const load = &command->load;
  PaceOptions* const pace = &command->pace;
  const absl::Duration zero = absl::ZeroDuration();
  const FlagTraits is_switch = {.implied = "true"};
  const FlagTraits order = {.implied = "true", .ends_reading = true};
  const FlagTraits completion = {.ends_reading = true};
  const FlagTraits help = {.implied = "true", .short_name = "-h,", .ends_reading = true};
  return {
      {"server", "127.0.0.1:8001",
       "the server; the library also takes several that are alike, with commas between them",
       client::kAddressForms, Text(&load->server, AreServers)},
      {"model", "swiglu_forward_fp16", "what is asked for", "one of the server's six models",
       Noted(&given->has_elementwise_flag, ModelOf(&load->model))},
      {"request_bytes", "64KiB",
       "bytes of the input tensors of a request, rank 1, or a mix such as 64KiB*9,4MiB*1",
       "SIZE[*WEIGHT][,SIZE[*WEIGHT]]...",
       Noted(&given->has_request_bytes_flag,
             Noted(&given->has_elementwise_flag, Mix(&load->request_bytes)))},
      {"sweep", "",
       "several sizes of requests instead of --request_bytes; a load for each, one after the other",
       "SIZE[,SIZE]...", Noted(&given->has_elementwise_flag, Sizes(&command->sweep))},
      {"mlp", "", "a layer of an MLP instead of --model", "NAME:LAYER", MlpLayer(given)},
      {"op", "forward", "which pass of the MLP", "forward or backward",
       Noted(&given->has_mlp_flag,
             OneOf<bool>(&given->mlp.is_backward, {{"forward", false}, {"backward", true}}))},
      {"layers", "1", "layers of the MLP, from LAYER on, that each request under way takes in turn",
       "1 to 100000", Noted(&given->has_mlp_flag, Number(&given->mlp.num_layers, 1, 100'000))},
      {"tokens", "1", "tokens of a request to the MLP, or a mix such as 8*9,512*1",
       "TOKENS[*WEIGHT][,TOKENS[*WEIGHT]]...", Noted(&given->has_mlp_flag, Tokens(&load->tokens))},
      {"client", "raw",
       "raw: encoded beforehand, answers not parsed; library: swiglu::client, which splits what is "
       "larger than a message",
       "raw or library",
       OneOf<ClientKind>(&command->client,
                         {{"raw", ClientKind::kRaw}, {"library", ClientKind::kLibrary}})},
      {"shared_memory", "none",
       "where requests have their tensors: in their messages, or in regions of shared memory, a "
       "set "
       "of tensors for each request under way",
       "none, system or cuda",
       OneOf<SharedMemory>(&load->shared_memory, {{"none", SharedMemory::kNone},
                                                  {"system", SharedMemory::kSystem},
                                                  {"cuda", SharedMemory::kCuda}})},
      {"check", "false",
       "compare the last results in shared memory with the server's answers by message, or, "
       "without shared memory, each answer with the first to an equal request, bit for bit, and "
       "the "
       "library's first ones with the formulas",
       "true or false", Truth(&command->check), is_switch},
      {"coalesce_bytes", "64KiB",
       "the largest request that the library joins with others, in bytes of its inputs; 0: none",
       "0 to 128KiB",
       Noted(&given->has_library_flag,
             server::Bytes(&load->coalesce_bytes, 0, kMostCoalesceBytes))},
      {"max_attempts", "1", "how often the library sends a message that a server refuses or loses",
       "1 to 100", Noted(&given->has_library_flag, Number(&load->max_attempts, 1, 100))},
      {"hedge_delay", "0",
       "how long a small call of the library waits for its answer before it is sent a second time; "
       "0: it is not",
       "a time, such as 5ms or 0",
       Noted(&given->has_library_flag, server::Time(&load->hedge_delay, zero, kDay))},
      {"streams", "on", "whether the library may send small requests over streams that stay open",
       "on or off",
       Noted(&given->has_library_flag,
             OneOf<bool>(&load->streams, {{"on", true}, {"off", false}}))},
      {"connections", "8", "connections to each server", "1 to 65536",
       Number(&load->num_connections, 1, kMost)},
      {"in_flight", "16", "requests under way in a closed loop, spread over the connections",
       "1 to 65536", Number(&given->in_flight, 1, kMost)},
      {"callers", "0",
       "threads of the library client, which share the requests under way and start them by "
       "futures; 0: a thread for each request, which blocks",
       "0 to 65536", Noted(&given->has_library_flag, Number(&load->num_callers, 0, kMost))},
      {"threads", "0",
       "threads of the raw client that take answers; 0: half of the cores, at most one per "
       "connection",
       "0 to 65536", Number(&given->threads, 0, kMost)},
      {"spin", "false",
       "threads that wait for answers poll without sleeping; each keeps a core busy",
       "true or false", Truth(&load->spin), is_switch},
      {"rate", "0", "requests per second of an open loop; 0: a closed loop", "0 to 1000000",
       Rate(&pace->rate)},
      {"arrivals", "poisson", "how an open loop's requests follow each other",
       "poisson or constant",
       OneOf<Arrivals>(&pace->arrivals,
                       {{"poisson", Arrivals::kPoisson}, {"constant", Arrivals::kConstant}})},
      {"max_outstanding", "256",
       "requests of an open loop under way at once; further ones start late, and those that did "
       "not start are counted",
       "1 to 65536", Number(&given->max_outstanding, 1, kMost)},
      {"duration", "5s", "time in which requests count", "a time above 0, such as 5s or 500ms",
       TimeFrom(absl::Nanoseconds(1), &pace->duration)},
      {"warm_up", "1s", "time before it", "a time, such as 1s or 0",
       TimeFrom(zero, &pace->warm_up)},
      {"requests", "0", "end after that many requests that count; 0: by --duration", "0 or more",
       Number(&pace->num_requests, 0, int64_t{1} << 40)},
      {"timeout", "0", "time for a request; 0: 30s, and 1s more per 100 MB of tensors, in and out",
       "a time, such as 10s", server::Time(&load->timeout, zero, kDay)},
      {"announce_size", "true",
       "whether the raw client tells the server sizes ahead, as the library", "true or false",
       Truth(&load->announce_size), is_switch},
      {"wait_ready", "0", "how long the server may take to become ready", "a time, such as 10s",
       server::Time(&command->wait_ready, zero, kDay)},
      {"metrics", "", "the server's Prometheus page, for its use of CPU and memory", "HOST:PORT",
       Text(&command->metrics, IsPage)},
      {"server_pid", "", "the server's process on this machine, for the same", "a process's number",
       Number(&command->server_pid, 1, 1 << 30)},
      {"json", "false", "print one JSON object", "true or false", Truth(&command->json), is_switch},
      {"histogram", "",
       "write the latencies to this file, as the percentile distribution of HdrHistogram", "a file",
       server::PathText(&command->histogram, server::ValueKind::kFile)},
      {"plot", "", "draw rate and latency over the sizes of --sweep to this file",
       "a file that ends in .svg", Drawing(&command->plot)},
      {"serve_echo", "", "serve the bare echo there until SIGTERM, instead of a load",
       "HOST:PORT or unix:/path", EchoAddress(command)},
      {"echo_threads", "4", "threads of the echo", "1 to 1024",
       Number(&command->echo.num_threads, 1, 1024)},
      {"echo_queues", "own", "whether its threads have a completion queue each", "own or shared",
       OneOf<EchoQueues>(&command->echo.queues,
                         {{"own", EchoQueues::kOwn}, {"shared", EchoQueues::kShared}})},
      {"echo_model", "swiglu_forward_fp16", "whose answers the echo gives",
       "one of the server's six models", ModelOf(&command->echo.model)},
      {"echo_bytes", "64KiB", "the sizes of requests that it answers", "SIZE[,SIZE]...",
       Sizes(&command->echo.request_bytes)},
      {"completion", "", "print a script that completes the flags in a shell", "bash",
       OrderOf("bash", Action::kCompletion, &command->action), completion},
      {"manual", "", "print the manual page, in the language of man(7)", "nothing",
       Order(Action::kManual, &command->action), order},
      {"version", "", "print the version", "nothing", Order(Action::kVersion, &command->action),
       order},
      {"help", "", "print this; -h likewise", "nothing", Order(Action::kHelp, &command->action),
       help},
  };
}

server::Program ProgramInto(Given* given) {
  return {.name = "swiglu-bench",
          .wording = server::Wording::kTakes,
          .about =
              "Puts load on a server of the Open Inference Protocol and measures it, or serves the "
              "bare echo:\n"
              "a server that moves the same bytes and computes nothing.\n",
          .notes =
              "SIGINT and SIGTERM end a load early: requests under way are waited for, and what "
              "was measured is\n"
              "printed. Another one after a second ends it at once.\n"
              "\n"
              "GB/s counts the bytes of tensors. Exit codes: 0 done, 1 bad input, 2 usage, 3 "
              "server unreachable\n"
              "or not ready, 4 every request failed, or --check found a wrong result.\n",
          .flags = FlagsInto(given)};
}

absl::Status Usage(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(what, "; see swiglu-bench --help"));
}

absl::Status CheckSize(const Model& model, int64_t request_bytes) {
  if (NumElements(model, request_bytes) > 0) return absl::OkStatus();
  return Usage(absl::StrCat("a request of ", request_bytes, " bytes has no element of '",
                            model.name(), "'"));
}

// Checks the flags for files of results, and gives a sweep the sizes of all its loads.
absl::Status CheckSweep(Given& given) {
  CommandLine& command = given.command;
  if (command.sweep.empty()) {
    return command.plot.empty() ? absl::OkStatus() : Usage("--plot takes --sweep");
  }
  if (given.has_request_bytes_flag) return Usage("--sweep goes without --request_bytes");
  if (!command.histogram.empty()) return Usage("--histogram takes one load, not --sweep");
  command.load.request_bytes.clear();
  for (const int64_t bytes : command.sweep) command.load.request_bytes.push_back({bytes});
  return absl::OkStatus();
}

// Checks a load of one of the six models.
absl::Status CheckElementwise(Given& given) {
  LoadOptions& load = given.command.load;
  if (given.has_mlp_flag) return Usage("--op, --layers and --tokens take --mlp");
  load.tokens.clear();
  for (const WeightedSize& size : load.request_bytes) {
    const absl::Status status = CheckSize(*load.model, size.bytes);
    if (!status.ok()) return status;
  }
  return CheckMessages(given.command.client, load);
}

// Makes the load that of an MLP. Only the server knows the model and the sizes of its requests.
absl::Status ChooseMlp(Given& given) {
  LoadOptions& load = given.command.load;
  if (given.has_elementwise_flag) {
    return Usage("--mlp goes with --op and --tokens, not with --model, --request_bytes or --sweep");
  }
  given.command.mlp = given.mlp;
  load.model = nullptr;
  load.request_bytes.clear();
  return absl::OkStatus();
}

// Checks what depends on the client and on the number of servers.
absl::Status CheckClient(const Given& given) {
  const CommandLine& command = given.command;
  const bool is_raw = command.client == ClientKind::kRaw;
  if (is_raw && given.has_library_flag) {
    return Usage(
        "--callers, --coalesce_bytes, --hedge_delay, --max_attempts and --streams take "
        "--client=library");
  }
  if (client::SplitAddresses(command.load.server)->size() == 1) return absl::OkStatus();
  const char* const one = is_raw                                              ? "--client=raw"
                          : command.load.shared_memory != SharedMemory::kNone ? "--shared_memory"
                          : !command.metrics.empty()                          ? "--metrics"
                          : command.server_pid != 0                           ? "--server_pid"
                                                                              : nullptr;
  if (one == nullptr) return absl::OkStatus();
  return Usage(absl::StrCat(one, " takes one server, not '", command.load.server, "'"));
}

// Checks --callers. REQUIRES: the number of requests in flight is set.
absl::Status CheckCallers(const Given& given) {
  const LoadOptions& load = given.command.load;
  if (load.num_callers == 0) return absl::OkStatus();
  if (load.spin) return Usage("--callers goes without --spin: only calls that block can poll");
  if (load.num_callers <= load.num_in_flight) return absl::OkStatus();
  return Usage(absl::StrCat("--callers takes at most the ", load.num_in_flight, " of ",
                            given.command.pace.rate > 0 ? "--max_outstanding" : "--in_flight",
                            ", not ", load.num_callers));
}

// Checks a load, and sets the values that depend on several flags or on the machine.
absl::Status Complete(Given& given) {
  LoadOptions& load = given.command.load;
  absl::Status status = CheckSweep(given);
  if (status.ok()) status = given.is_mlp ? ChooseMlp(given) : CheckElementwise(given);
  if (status.ok()) status = CheckClient(given);
  if (!status.ok()) return status;
  if (load.shared_memory == SharedMemory::kCuda && !kHasCuda) {
    return Usage("--shared_memory=cuda takes a swiglu-bench that is built with CUDA");
  }
  load.num_in_flight = given.command.pace.rate > 0 ? given.max_outstanding : given.in_flight;
  if (status = CheckCallers(given); !status.ok()) return status;
  // The library may use more connections, because it splits large requests over them.
  if (given.command.client == ClientKind::kRaw) {
    load.num_connections = std::min(load.num_connections, load.num_in_flight);
  }
  // If the server runs on this machine, it needs the other half of the cores.
  const int half = std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / 2);
  load.num_threads = std::min(given.threads > 0 ? given.threads : half, load.num_connections);
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckMessages(ClientKind client, const LoadOptions& load) {
  if (client != ClientKind::kRaw || load.shared_memory != SharedMemory::kNone) {
    return absl::OkStatus();
  }
  for (const WeightedSize& size : load.request_bytes) {
    if (size.bytes <= kMaxRawRequestBytes) continue;
    return Usage(absl::StrCat("a request of ", server::FormatByteSize(size.bytes),
                              " does not fit into a message: it takes --client=library"));
  }
  return absl::OkStatus();
}

absl::StatusOr<CommandLine> ParseCommandLine(int argc, const char* const* argv) {
  Given given;
  const server::Program program = ProgramInto(&given);
  server::SetDefaults(program);
  given.has_mlp_flag = given.has_elementwise_flag = given.has_library_flag = false;
  given.has_request_bytes_flag = false;
  absl::Status status = server::ReadArguments(program, argc, argv).status();
  if (status.ok() && given.command.action == Action::kLoad) status = Complete(given);
  if (status.ok() && given.command.action == Action::kServeEcho) {
    for (const int64_t bytes : given.command.echo.request_bytes) {
      status.Update(CheckSize(*given.command.echo.model, bytes));
    }
  }
  if (!status.ok()) return status;
  return given.command;
}

std::string HelpText() {
  Given unused;
  return server::HelpText(ProgramInto(&unused), "");
}

std::string CompletionText() {
  Given unused;
  return server::BashCompletion(ProgramInto(&unused));
}

std::string ManualText() {
  Given unused;
  return server::ManualPage(ProgramInto(&unused), {.summary = "load generator for a swiglu-server",
                                                   .version = absl::StrCat("swiglu ", kVersion),
                                                   .see_also = {"swiglu(1)", "swiglu-server(8)"}});
}

const char* Name(ClientKind client) { return client == ClientKind::kRaw ? "raw" : "library"; }

const char* Name(SharedMemory memory) {
  switch (memory) {
    case SharedMemory::kNone:
      return "none";
    case SharedMemory::kSystem:
      return "system";
    case SharedMemory::kCuda:
      return "cuda";
  }
  return "";
}

const char* Name(Arrivals arrivals) {
  return arrivals == Arrivals::kPoisson ? "poisson" : "constant";
}

}  // namespace swiglu::bench
