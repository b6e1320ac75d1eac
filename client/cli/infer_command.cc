// SPDX-License-Identifier: Apache-2.0
//
// Open → check → call → write → print.
#include "client/cli/infer_command.h"

#include <stdio.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/cli/progress_bar.h"
#include "client/files/output_file.h"
#include "client/files/tensor_file.h"
#include "nlohmann/json.hpp"
#include "swiglu/client.h"

namespace swiglu::cli {
namespace {

using client::Tensor;
using client::TensorView;
using files::IfExists;
using files::TensorFile;

struct Output {
  std::string name;
  std::string path;
};

// The inputs in the order of the call: e, g or dw, e, g.
absl::StatusOr<std::vector<TensorFile>> OpenInputs(const CommandLine& command_line) {
  std::vector<std::string> specs = {command_line.e, command_line.g};
  if (command_line.command == Command::kBackward) specs.insert(specs.begin(), command_line.dw);
  std::vector<TensorFile> inputs;
  for (const std::string& spec : specs) {
    absl::StatusOr<TensorFile> input = TensorFile::Open(spec);
    if (!input.ok()) return input.status();
    inputs.push_back(*std::move(input));
  }
  return inputs;
}

absl::Status CheckInputs(const std::vector<TensorFile>& inputs) {
  if (inputs.size() == 2) return client::CheckForward(inputs[0].tensor(), inputs[1].tensor());
  return client::CheckBackward(inputs[0].tensor(), inputs[1].tensor(), inputs[2].tensor());
}

// Where the results go. Those of backward take the extension that all inputs share.
absl::StatusOr<std::vector<Output>> PlanOutputs(const CommandLine& command_line,
                                                const std::vector<TensorFile>& inputs) {
  if (command_line.command == Command::kForward) return {{{"h", command_line.out}}};
  for (const TensorFile& input : inputs) {
    if (input.format() == inputs.front().format()) continue;
    return absl::InvalidArgumentError(
        "the inputs are of both kinds, .npy and .safetensors; the results take the kind of all");
  }
  std::vector<Output> outputs;
  for (const char* name : {"h", "df", "de"}) {
    outputs.push_back({name, absl::StrCat(command_line.out_dir, "/", name,
                                          files::Extension(inputs.front().format()))});
  }
  return outputs;
}

absl::Status CheckOutputs(const std::vector<Output>& outputs, client::Dtype dtype,
                          IfExists if_exists) {
  for (const Output& output : outputs) {
    absl::StatusOr<files::Format> format = files::FormatOf(output.path);
    if (!format.ok()) return format.status();
    absl::Status status = files::CheckFormatHolds(*format, dtype);
    if (!status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(output.path, ": ", status.message()));
    }
    status = files::CheckMayWrite(output.path, if_exists);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// The results in the order of the outputs.
absl::StatusOr<std::vector<Tensor>> Call(client::Client& client,
                                         const std::vector<TensorFile>& inputs) {
  ProgressBar bar;
  client::CallOptions options;
  options.on_chunk = [&bar](int64_t num_done, int64_t num_chunks) {
    bar.Show(num_done, num_chunks);
  };
  std::vector<Tensor> results;
  if (inputs.size() == 2) {
    absl::StatusOr<Tensor> h = client.Forward(inputs[0].tensor(), inputs[1].tensor(), options);
    if (!h.ok()) return h.status();
    results.push_back(*std::move(h));
    return results;
  }
  absl::StatusOr<client::BackwardResult> result =
      client.Backward(inputs[0].tensor(), inputs[1].tensor(), inputs[2].tensor(), options);
  if (!result.ok()) return result.status();
  results.push_back(std::move(result->h));
  results.push_back(std::move(result->df));
  results.push_back(std::move(result->de));
  return results;
}

// Writes all files before the first gets its name.
absl::Status WriteOutputs(const std::vector<Output>& outputs, const std::vector<Tensor>& results,
                          IfExists if_exists) {
  std::vector<files::OutputFile> pending;
  for (size_t k = 0; k < outputs.size(); ++k) {
    absl::StatusOr<files::OutputFile> file =
        files::WriteTensor(outputs[k].path, outputs[k].name, results[k].view(), if_exists);
    if (!file.ok()) return file.status();
    pending.push_back(*std::move(file));
  }
  for (files::OutputFile& file : pending) {
    const absl::Status status = file.Commit();
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

void PrintResult(const CommandLine& command_line, const std::vector<Output>& outputs,
                 const TensorView& like, absl::Duration elapsed) {
  const std::string op = command_line.command == Command::kForward ? "forward" : "backward";
  const size_t num_tensors = outputs.size() == 1 ? 3 : 6;
  const double ms = absl::ToDoubleMilliseconds(elapsed);
  const double gb_per_s =
      ms > 0 ? static_cast<double>(num_tensors * like.bytes.size()) / (ms * 1e6) : 0;
  if (!command_line.json) {
    absl::PrintF("%s %s %s: %.3f ms, %.2f GB/s\n", op, client::DatatypeName(like.dtype),
                 client::FormatShape(like.shape), ms, gb_per_s);
    return;
  }
  nlohmann::ordered_json json;
  json["op"] = op;
  json["dtype"] = std::string(client::DatatypeName(like.dtype));
  json["shape"] = like.shape;
  json["ms"] = ms;
  json["gb_per_s"] = gb_per_s;
  for (const Output& output : outputs) json["files"][output.name] = output.path;
  // A path need not be UTF-8.
  puts(json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
}

}  // namespace

Outcome RunInfer(const CommandLine& command_line) {
  absl::StatusOr<std::unique_ptr<client::Client>> client =
      client::Client::Create(command_line.server, {.timeout = command_line.timeout});
  if (!client.ok()) return {ExitCode::kUsage, std::string(client.status().message())};
  const IfExists if_exists = command_line.overwrite ? IfExists::kOverwrite : IfExists::kFail;
  absl::StatusOr<std::vector<TensorFile>> inputs = OpenInputs(command_line);
  if (!inputs.ok()) return BadInput(inputs.status());
  absl::Status status = CheckInputs(*inputs);
  if (!status.ok()) return BadInput(status);
  const TensorView& like = inputs->front().tensor();
  absl::StatusOr<std::vector<Output>> outputs = PlanOutputs(command_line, *inputs);
  if (!outputs.ok()) return BadInput(outputs.status());
  status = CheckOutputs(*outputs, like.dtype, if_exists);
  if (!status.ok()) return BadInput(status);

  const Outcome readiness = CheckReady(**client);
  if (readiness.code != ExitCode::kDone) return readiness;

  const absl::Time start = absl::Now();
  absl::StatusOr<std::vector<Tensor>> results = Call(**client, *inputs);
  const absl::Duration elapsed = absl::Now() - start;
  if (!results.ok()) return CallFailed(results.status(), **client);
  status = WriteOutputs(*outputs, *results, if_exists);
  if (!status.ok()) return BadInput(status);
  PrintResult(command_line, *outputs, like, elapsed);
  return {};
}

}  // namespace swiglu::cli
