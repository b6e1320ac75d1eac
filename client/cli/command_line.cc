// SPDX-License-Identifier: Apache-2.0
//
// The table of commands and flags.
#include "client/cli/command_line.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "server/base/command_line.h"
#include "server/base/completion.h"
#include "server/base/flag_values.h"
#include "server/base/manual_page.h"
#include "version/version.h"

namespace swiglu::cli {
namespace {

using server::Flag;
using server::FlagTraits;
using server::PathText;
using server::Text;
using server::Truth;
using server::ValueKind;

// The values of the flags, as they were read.
struct Given {
  CommandLine line;
  std::optional<absl::Duration> timeout;
  bool help = false;
  bool version = false;
  bool completion = false;
  bool manual = false;
};

server::ReadValue Duration(std::optional<absl::Duration>* field) {
  return [field](absl::string_view text) { return absl::ParseDuration(text, &field->emplace()); };
}

// Reads a flag without a value.
server::ReadValue Asked(bool* field) { return server::OneOf<bool>(field, {{"true", true}}); }

// Reads the number of a layer. An empty text is no error here: the flag is then missing.
server::ReadValue Layer(int* field) {
  return [field](absl::string_view text) {
    return text.empty() || server::Number(field, 0, std::numeric_limits<int>::max())(text);
  };
}

// Reads a number that is written with digits alone.
bool ReadDigits(absl::string_view text, int64_t* number) {
  return std::all_of(text.begin(), text.end(), absl::ascii_isdigit) &&
         absl::SimpleAtoi(text, number);
}

// Reads the dimensions of a shape, such as `4,1000`.
server::ReadValue Dimensions(std::optional<client::Shape>* field) {
  return [field](absl::string_view text) {
    client::Shape& shape = field->emplace();
    for (const absl::string_view word : absl::StrSplit(text, ',')) {
      if (!ReadDigits(word, &shape.emplace_back())) return false;
    }
    return true;
  };
}

// Reads a dtype, in small letters as in the names of models, or as the protocol writes it.
server::ReadValue DtypeName(std::optional<client::Dtype>* field) {
  return [field](absl::string_view text) {
    const absl::optional<client::Dtype> dtype = client::ParseDatatype(absl::AsciiStrToUpper(text));
    if (dtype.has_value()) field->emplace(*dtype);
    return dtype.has_value();
  };
}

Flag TensorFlag(const char* name, const char* help, std::string* field,
                std::vector<std::string> commands) {
  return {name,
          "",
          help,
          "FILE, FILE:TENSOR, :TENSOR of --in, or -",
          PathText(field, ValueKind::kFile),
          {.commands = std::move(commands)}};
}

// Every flag, in the order of --help.
std::vector<Flag> FlagsInto(Given* given) {
  CommandLine* const line = &given->line;
  const FlagTraits required = {.is_required = true};
  const FlagTraits infer = {.commands = {"forward", "backward", "mlp"}};
  const FlagTraits infer_truth = {.implied = "true", .commands = infer.commands};
  const FlagTraits mlp = {.is_required = true, .commands = {"mlp"}};
  const FlagTraits model = {.is_required = true,
                            .commands = {"mlp", "metadata", "statistics"},
                            .optional = {"metadata", "statistics"}};
  const FlagTraits regions = {.commands = {"regions"}};
  const FlagTraits unregister_all = {.implied = "true", .commands = {"regions"}};
  const FlagTraits order = {.implied = "true", .ends_reading = true};
  const FlagTraits completion = {.ends_reading = true};
  const FlagTraits help = {.implied = "true", .short_name = "-h,", .ends_reading = true};
  return {
      {"server", "127.0.0.1:8001", "The server.", "HOST:PORT, dns:///NAME:PORT or unix:/path",
       Text(&line->server), required},
      {"timeout", "",
       "Time for the call; by default 30s, and 1s more per 100 MB of tensors, in and out.",
       "a duration such as 10s or 500ms", Duration(&given->timeout)},
      {"json", "false", "Print JSON.", "true or false", Truth(&line->json), {.implied = "true"}},
      {"overwrite", "false", "Replace output files that exist.", "true or false",
       Truth(&line->overwrite), infer_truth},
      {"in", "",
       "The inputs that no other flag names: by name (dw, e, g, x, dy) from a .safetensors file, "
       "or one after the other, in the order of the flags, from a raw one.",
       "FILE, or - for standard input", PathText(&line->in, ValueKind::kFile), infer},
      TensorFlag("dw", "The gradient with respect to h.", &line->dw, {"backward"}),
      TensorFlag("e", "The gate.", &line->e, {"forward", "backward"}),
      TensorFlag("g", "The up projection.", &line->g, {"forward", "backward"}),
      {"model", "",
       "The name of the MLP, as in the server's --mlp=NAME=PATH. For metadata and statistics: the "
       "name of a model, as status lists them.",
       "a name", Text(&line->model), model},
      {"layer", "", "The number of its layer.", "a number, 0 or more", Layer(&line->layer), mlp},
      {"op",
       "",
       "Its pass: forward computes y, backward dx; by default backward if --dy is there.",
       "forward or backward",
       server::Word(&line->op, {"forward", "backward"}),
       {.commands = {"mlp"}}},
      TensorFlag("x", "The input of the layer.", &line->x, {"mlp"}),
      TensorFlag("dy", "The gradient with respect to y, for the backward pass.", &line->dy,
                 {"mlp"}),
      {"shape", "", "The shape of each raw input; see below.",
       "one or more dimensions such as 4,1000", Dimensions(&line->shape), infer},
      {"dtype", "", "The dtype of raw inputs.", "fp16, bf16 or fp32", DtypeName(&line->dtype),
       infer},
      {"out", "", "The file for all results: h, or h, df and de of backward; y or dx of mlp.",
       "FILE, or - for standard output", PathText(&line->out, ValueKind::kFile), infer},
      {"out_dir",
       "",
       "The folder for h, df and de, a file each; made if it is not there.",
       "a folder",
       PathText(&line->out_dir, ValueKind::kFolder),
       {.commands = {"backward"}}},
      {"check", "false",
       "Compare the results with the formulas in float64, and tell the largest error of each; not "
       "for mlp.",
       "true or false", Truth(&line->check), infer_truth},
      {"kind", "both", "Which regions.", "both, system or cuda",
       server::OneOf<RegionKinds>(&line->kind, {{"both", RegionKinds::kBoth},
                                                {"system", RegionKinds::kSystem},
                                                {"cuda", RegionKinds::kCuda}}),
       regions},
      {"unregister", "", "Unregister this region instead of listing.", "a region's name",
       Text(&line->unregister), regions},
      {"unregister_all", "false", "Unregister all regions, those of every client.", "true or false",
       Truth(&line->unregister_all), unregister_all},
      {"completion", "", "Print a script that completes the command's arguments in a shell.",
       "bash", server::OneOf<bool>(&given->completion, {{"bash", true}}), completion},
      {"manual", "", "Print the manual page, in the language of man(7).", "nothing",
       Asked(&given->manual), order},
      {"version", "", "Print the version.", "nothing", Asked(&given->version), order},
      {"help", "", "Print this; -h likewise.", "nothing", Asked(&given->help), help},
  };
}

server::Program ProgramInto(Given* given) {
  return {
      .name = "swiglu",
      .wording = server::Wording::kTakes,
      .about = "SwiGLU on a swiglu-server.\n",
      .notes =
          "Files are .npy (FP16, FP32), .safetensors (FP16, BF16, FP32), and .raw or .bin: raw "
          "bytes,\n"
          "row-major and little-endian, whose inputs need --shape and --dtype. :TENSOR may be left "
          "out where\n"
          "a file holds one tensor. - is standard input or output. Standard input is raw with "
          "--shape,\n"
          "otherwise .npy or .safetensors. Results in a folder or on standard output take the "
          "format of the\n"
          "inputs. GB/s counts the bytes of all tensors, in and out.\n"
          "\n"
          "Exit codes: 0 done, 1 bad input or file, 2 usage, 3 server unreachable or not ready,\n"
          "4 the server refused or failed the call, or --check found a wrong result.\n",
      .commands = {{"forward", "{--in FILE | --e FILE[:TENSOR] --g FILE[:TENSOR]} --out FILE",
                    "h = SiLU(e) * g"},
                   {"backward",
                    "{--in FILE | --dw FILE[:TENSOR] --e FILE[:TENSOR] --g FILE[:TENSOR]}\n"
                    "      {--out FILE | --out_dir DIR}",
                    "h, df (the gradient with respect to g) and de (that with respect to e)"},
                   {"mlp",
                    "--model NAME --layer N {--in FILE | --x FILE[:TENSOR] [--dy FILE[:TENSOR]]} "
                    "--out FILE",
                    "y of a layer of an MLP, with the server's weights; or dx, the gradient with "
                    "respect to "
                    "x"},
                   {"status", "", "readiness, device, models and counters of the server"},
                   {"metadata", "[--model NAME]",
                    "name, version and extensions of the server; or versions, tensors and "
                    "properties of a model"},
                   {"statistics", "[--model NAME]",
                    "requests, batches and times of the server's models, or of one"},
                   {"regions", "", "the regions of shared memory that are registered at it"},
                   {"bench", "[--FLAG=VALUE]...",
                    "runs swiglu-bench with these flags; swiglu bench --help shows them",
                    "swiglu-bench"}},
      .flags = FlagsInto(given)};
}

std::string ManualText(const server::Program& program) {
  return server::ManualPage(program,
                            {.summary = "SwiGLU on tensor files, computed by a swiglu-server",
                             .version = absl::StrCat("swiglu ", kVersion),
                             .see_also = {"swiglu-bench(1)", "swiglu-server(8)"}});
}

// What the program prints instead of running a command; empty if it is to run one.
std::string TextOf(const server::Program& program, const Given& given, absl::string_view command) {
  if (given.help) return server::HelpText(program, command);
  if (given.completion) return server::BashCompletion(program);
  if (given.manual) return ManualText(program);
  if (given.version) return absl::StrCat("swiglu ", kVersion, " (", kCommit, ")\n");
  return "";
}

Command CommandOf(absl::string_view name) {
  return name == "forward"      ? Command::kForward
         : name == "backward"   ? Command::kBackward
         : name == "mlp"        ? Command::kMlp
         : name == "metadata"   ? Command::kMetadata
         : name == "statistics" ? Command::kStatistics
         : name == "regions"    ? Command::kRegions
                                : Command::kStatus;
}

}  // namespace

absl::StatusOr<CommandLine> ParseCommandLine(int argc, const char* const* argv) {
  Given given;
  CommandLine& line = given.line;
  const server::Program program = ProgramInto(&given);
  server::SetDefaults(program);
  const absl::StatusOr<std::string> command = server::ReadArguments(program, argc, argv);
  if (!command.ok()) return command.status();
  line.text = TextOf(program, given, *command);
  if (!line.text.empty()) return line;
  if (*command == "bench") {
    return absl::InvalidArgumentError(
        "bench is the first argument, and its flags follow it; see swiglu --help");
  }
  line.command = CommandOf(*command);
  if (!line.unregister.empty() && line.unregister_all) {
    return absl::InvalidArgumentError(
        "--unregister and --unregister_all do not go together; see swiglu --help");
  }
  if (!given.timeout.has_value()) return line;
  line.timeout = *given.timeout;
  if (line.timeout > absl::ZeroDuration() && line.timeout < absl::InfiniteDuration()) return line;
  return absl::InvalidArgumentError(absl::StrCat("--timeout is above 0 and finite, not ",
                                                 absl::FormatDuration(line.timeout),
                                                 "; see swiglu --help"));
}

}  // namespace swiglu::cli
