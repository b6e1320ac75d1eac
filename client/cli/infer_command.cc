// SPDX-License-Identifier: Apache-2.0
//
// Open → check → make room → call → check results → write → print.
#include <stdio.h>
#include <unistd.h>

#include <cstdint>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/cli/commands.h"
#include "client/cli/infer_inputs.h"
#include "client/cli/infer_outputs.h"
#include "client/cli/memory_need.h"
#include "client/cli/progress_bar.h"
#include "client/cli/result_check.h"
#include "client/files/mapped_file.h"
#include "client/files/standard_streams.h"
#include "client/files/tensor_file.h"
#include "nlohmann/json.hpp"
#include "swiglu/client.h"
#include "swiglu/client_mlp.h"

namespace swiglu::cli {
namespace {

using client::Tensor;
using client::TensorView;
using files::UnfinishedFiles;

// The layer that `swiglu mlp` names.
client::Mlp MlpOf(const CommandLine& command_line, client::Client& client) {
  return client.Mlp(command_line.model, command_line.layer);
}

absl::Status CheckInputs(const CommandLine& command_line, client::Client& client,
                         const std::vector<TensorView>& inputs) {
  if (command_line.command == Command::kMlp) {
    const client::Mlp mlp = MlpOf(command_line, client);
    return inputs.size() == 1 ? mlp.CheckForward(inputs[0])
                              : mlp.CheckBackward(inputs[0], inputs[1]);
  }
  if (inputs.size() == 2) return client::CheckForward(inputs[0], inputs[1]);
  return client::CheckBackward(inputs[0], inputs[1], inputs[2]);
}

// Allocates the results, in the order of the outputs.
absl::StatusOr<std::vector<Tensor>> MakeResults(size_t num_results, const TensorView& like) {
  std::vector<Tensor> results;
  try {
    while (results.size() < num_results) {
      results.emplace_back(like.dtype, like.shape, static_cast<int64_t>(like.bytes.size()));
    }
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(absl::StrCat("no memory for the results: ", num_results,
                                                     " of ", like.bytes.size(), " bytes"));
  }
  return results;
}

// Fills the results. Returns the SHA-256 of the weights that computed them, empty if there are
// none.
absl::StatusOr<std::string> Call(const CommandLine& command_line, client::Client& client,
                                 const std::vector<TensorView>& inputs,
                                 std::vector<Tensor>& results, ProgressBar& bar) {
  client::CallOptions options;
  options.on_chunk = [&bar](int64_t num_done, int64_t num_chunks) {
    bar.Show(num_done, num_chunks);
  };
  if (command_line.command == Command::kMlp) {
    const client::Mlp mlp = MlpOf(command_line, client);
    const client::OutputTensor result = results[0].mutable_bytes();
    return inputs.size() == 1 ? mlp.ForwardInto(inputs[0], result, options)
                              : mlp.BackwardInto(inputs[0], inputs[1], result, options);
  }
  const absl::Status status =
      inputs.size() == 2
          ? client.ForwardInto(inputs[0], inputs[1], results[0].mutable_bytes(), options)
          : client.BackwardInto(inputs[0], inputs[1], inputs[2],
                                {results[0].mutable_bytes(), results[1].mutable_bytes(),
                                 results[2].mutable_bytes()},
                                options);
  if (!status.ok()) return status;
  return "";
}

// The inputs that are mapped files.
std::vector<const files::MappedFile*> MappedFiles(const Inputs& inputs) {
  std::vector<const files::MappedFile*> mapped;
  for (const files::TensorFile& file : inputs.files) {
    if (file.mapped() != nullptr) mapped.push_back(file.mapped());
  }
  return mapped;
}

// Ends the process with an error if it reads a part of an input that has been cut off.
files::TruncationWatch WatchInputs(const Inputs& inputs) {
  return files::TruncationWatch("swiglu", static_cast<int>(ExitCode::kBadInput),
                                MappedFiles(inputs));
}

// Lost bytes of an input were sent as zeros, or could not be sent. Either way this is an error.
absl::Status CheckWhole(const Inputs& inputs) {
  for (const files::MappedFile* file : MappedFiles(inputs)) {
    const absl::Status status = file->CheckWhole();
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// The names of the results of all outputs.
std::vector<std::string> NamesIn(const std::vector<Output>& outputs) {
  std::vector<std::string> names;
  for (const Output& output : outputs) {
    names.insert(names.end(), output.results.begin(), output.results.end());
  }
  return names;
}

// What a finished call is reported by.
struct Done {
  const TensorView& like;  // a tensor with the dtype and the shape of all
  size_t num_tensors;      // of the call, in and out
  absl::Duration elapsed;
  std::string weights_sha256;       // empty if there are none
  std::vector<double> largest_ulp;  // of each result; empty if they were not checked
};

double GbPerS(const Done& done) {
  const double ms = absl::ToDoubleMilliseconds(done.elapsed);
  const size_t num_bytes = done.num_tensors * done.like.bytes.size();
  return ms > 0 ? static_cast<double>(num_bytes) / (ms * 1e6) : 0;
}

std::string TextOf(const CommandLine& command_line, const std::vector<Output>& outputs,
                   const Done& done) {
  const bool is_mlp = command_line.command == Command::kMlp;
  std::string text =
      is_mlp ? absl::StrCat("mlp ", command_line.model, " ", command_line.layer, " ") : "";
  absl::StrAppendFormat(&text, "%s %s %s: %.3f ms, %.2f GB/s",
                        IsBackward(command_line) ? "backward" : "forward",
                        client::DatatypeName(done.like.dtype), client::FormatShape(done.like.shape),
                        absl::ToDoubleMilliseconds(done.elapsed), GbPerS(done));
  if (is_mlp) absl::StrAppend(&text, ", weights ", done.weights_sha256);
  const std::vector<std::string> names = NamesIn(outputs);
  for (size_t k = 0; k < done.largest_ulp.size(); ++k) {
    absl::StrAppendFormat(&text, "%s %s %.3g ulp", k == 0 ? ", largest error:" : ",", names[k],
                          done.largest_ulp[k]);
  }
  return text;
}

std::string JsonOf(const CommandLine& command_line, const std::vector<Output>& outputs,
                   const Done& done) {
  nlohmann::ordered_json json;
  json["op"] = IsBackward(command_line) ? "backward" : "forward";
  if (command_line.command == Command::kMlp) {
    json["model"] = command_line.model;
    json["layer"] = command_line.layer;
    json["weights_sha256"] = done.weights_sha256;
  }
  json["dtype"] = std::string(client::DatatypeName(done.like.dtype));
  json["shape"] = done.like.shape;
  json["ms"] = absl::ToDoubleMilliseconds(done.elapsed);
  json["gb_per_s"] = GbPerS(done);
  for (const Output& output : outputs) {
    for (const std::string& name : output.results) json["files"][name] = output.path;
  }
  const std::vector<std::string> names = NamesIn(outputs);
  for (size_t k = 0; k < done.largest_ulp.size(); ++k) {
    json["largest_error_ulp"][names[k]] = done.largest_ulp[k];
  }
  // A path may be invalid UTF-8.
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// On stdout, or on stderr if the results are on stdout. An error if stdout cannot be written.
ProgramEnd PrintResult(const CommandLine& command_line, const std::vector<Output>& outputs,
                       const Done& done) {
  const std::string line =
      command_line.json ? JsonOf(command_line, outputs, done) : TextOf(command_line, outputs, done);
  fputs((line + "\n").c_str(), IsOnStandardOutput(command_line) ? stderr : stdout);
  if (fflush(stdout) == 0) return {};
  return {ExitCode::kBadInput, "cannot write to stdout; the results are written"};
}

// What is wrong with the flags, as far as no file is needed to know it.
absl::Status CheckFlags(const CommandLine& command_line) {
  absl::Status status = CheckInputFlags(command_line);
  status.Update(CheckOutputFlags(command_line));
  if (status.ok() && command_line.check && command_line.command == Command::kMlp) {
    return absl::InvalidArgumentError(
        "--check does not work with mlp, whose weights are at the server; see swiglu --help");
  }
  return status;
}

// All that a call needs.
struct Work {
  Inputs inputs;
  std::vector<Output> outputs;
  std::vector<std::string> names;  // of the results
  std::vector<Tensor> results;     // not filled yet

  // A tensor with the dtype and the shape of all.
  const TensorView& like() const { return inputs.tensors.front(); }
};

// Opens the inputs, checks all that can be checked before the call, and makes room for the results.
absl::StatusOr<Work> Prepare(const CommandLine& command_line, client::Client& client) {
  Work work;
  absl::Status status;
  if (IsOnStandardOutput(command_line)) status = files::CheckMayWriteStandardOutput();
  if (!status.ok()) return status;
  absl::StatusOr<Inputs> inputs = OpenInputs(command_line);
  if (!inputs.ok()) return inputs.status();
  work.inputs = *std::move(inputs);
  status = CheckInputs(command_line, client, work.inputs.tensors);
  if (!status.ok()) return status;
  absl::StatusOr<std::vector<Output>> outputs = PlanOutputs(command_line, work.inputs);
  if (!outputs.ok()) return outputs.status();
  work.outputs = *std::move(outputs);
  status = CheckOutputs(command_line, work.outputs, work.like().dtype);
  if (!status.ok()) return status;
  work.names = NamesIn(work.outputs);
  const uint64_t result_bytes = work.names.size() * work.like().bytes.size();
  status = CheckMemory(work.inputs.StandardInputBytes(), result_bytes);
  if (!status.ok()) return status;
  absl::StatusOr<std::vector<Tensor>> results = MakeResults(work.names.size(), work.like());
  if (!results.ok()) return results.status();
  work.results = *std::move(results);
  status = CheckAddressSpace(result_bytes);
  if (!status.ok()) return status;
  return work;
}

// The largest errors of the results, or none if the user does not want to know them.
absl::StatusOr<std::vector<double>> CheckIfAsked(const CommandLine& command_line,
                                                 const Work& work) {
  if (!command_line.check) return std::vector<double>();
  return CheckResults(work.inputs, work.names, work.results);
}

}  // namespace

ProgramEnd RunInfer(const CommandLine& command_line, UnfinishedFiles& unfinished) {
  absl::Status status = CheckFlags(command_line);
  if (!status.ok()) return {ExitCode::kUsage, std::string(status.message())};
  absl::StatusOr<client::Client> client =
      client::Client::Create(command_line.server, {.timeout = command_line.timeout});
  if (!client.ok()) return {ExitCode::kUsage, std::string(client.status().message())};
  absl::StatusOr<Work> work = Prepare(command_line, *client);
  if (!work.ok()) return BadInput(work.status());
  const files::TruncationWatch watch = WatchInputs(work->inputs);
  auto bar = std::make_unique<ProgressBar>("waiting for the server");
  const ProgramEnd readiness = CheckReady(*client);
  if (readiness.code != ExitCode::kDone) return readiness;

  const absl::Time start = absl::Now();
  const absl::StatusOr<std::string> called =
      Call(command_line, *client, work->inputs.tensors, work->results, *bar);
  const absl::Duration elapsed = absl::Now() - start;
  absl::StatusOr<std::vector<double>> largest_ulp = std::vector<double>();
  if (called.ok() && command_line.check)
    bar = std::make_unique<ProgressBar>("checking the results");
  if (called.ok()) largest_ulp = CheckIfAsked(command_line, *work);
  // A damaged input may be the cause of a failed call, so its error takes precedence.
  status = CheckWhole(work->inputs);
  if (!status.ok()) return BadInput(status);
  if (!called.ok()) return CallFailed(called.status(), *client);
  if (!largest_ulp.ok()) return {ExitCode::kRefused, std::string(largest_ulp.status().message())};
  bar = std::make_unique<ProgressBar>("writing the results");
  status = WriteOutputs(command_line, work->outputs, work->results, unfinished);
  bar.reset();
  if (!status.ok()) return BadInput(status);
  return PrintResult(command_line, work->outputs,
                     {work->like(), work->inputs.tensors.size() + work->names.size(), elapsed,
                      *called, *std::move(largest_ulp)});
}

}  // namespace swiglu::cli
