// SPDX-License-Identifier: Apache-2.0
//
// Open → check → make room → call → write → print.
#include <stdio.h>
#include <unistd.h>

#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "client/cli/commands.h"
#include "client/files/mapped_file.h"
#include "client/files/output_file.h"
#include "client/files/output_folder.h"
#include "client/files/tensor_file.h"
#include "nlohmann/json.hpp"
#include "swiglu/client.h"
#include "swiglu/client_mlp.h"

namespace swiglu::cli {
namespace {

using client::Tensor;
using client::TensorView;
using files::IfExists;
using files::TensorFile;
using files::UnfinishedFiles;

struct Output {
  std::string name;
  std::string path;
};

bool IsBackward(const CommandLine& command_line) {
  return command_line.command == Command::kBackward || !command_line.dy.empty();
}

// The files of the inputs, in the order of the call's arguments.
std::vector<std::string> InputSpecs(const CommandLine& command_line) {
  if (command_line.command == Command::kMlp) {
    if (IsBackward(command_line)) return {command_line.x, command_line.dy};
    return {command_line.x};
  }
  if (IsBackward(command_line)) return {command_line.dw, command_line.e, command_line.g};
  return {command_line.e, command_line.g};
}

absl::StatusOr<std::vector<TensorFile>> OpenInputs(const CommandLine& command_line) {
  std::vector<TensorFile> inputs;
  for (const std::string& spec : InputSpecs(command_line)) {
    absl::StatusOr<TensorFile> input = TensorFile::Open(spec);
    if (!input.ok()) return input.status();
    inputs.push_back(*std::move(input));
  }
  return inputs;
}

// The layer that `swiglu mlp` names.
client::Mlp MlpOf(const CommandLine& command_line, client::Client& client) {
  return client.Mlp(command_line.model, command_line.layer);
}

absl::Status CheckInputs(const CommandLine& command_line, client::Client& client,
                         const std::vector<TensorFile>& inputs) {
  if (command_line.command == Command::kMlp) {
    const client::Mlp mlp = MlpOf(command_line, client);
    return inputs.size() == 1 ? mlp.CheckForward(inputs[0].tensor)
                              : mlp.CheckBackward(inputs[0].tensor, inputs[1].tensor);
  }
  if (inputs.size() == 2) return client::CheckForward(inputs[0].tensor, inputs[1].tensor);
  return client::CheckBackward(inputs[0].tensor, inputs[1].tensor, inputs[2].tensor);
}

// The names and paths of the results. Those of backward get the extension that all inputs share.
absl::StatusOr<std::vector<Output>> PlanOutputs(const CommandLine& command_line,
                                                const std::vector<TensorFile>& inputs) {
  if (command_line.command == Command::kForward) return {{{"h", command_line.out}}};
  if (command_line.command == Command::kMlp) {
    return {{{IsBackward(command_line) ? "dx" : "y", command_line.out}}};
  }
  for (const TensorFile& input : inputs) {
    if (input.format == inputs.front().format) continue;
    return absl::InvalidArgumentError(
        "the inputs are of both kinds, .npy and .safetensors; the results take the kind of all");
  }
  std::vector<Output> outputs;
  for (const char* name : {"h", "df", "de"}) {
    outputs.push_back({name, absl::StrCat(command_line.out_dir, "/", name,
                                          files::Extension(inputs.front().format))});
  }
  return outputs;
}

// Whether the folder for backward's results is missing. If so, no file in it can be in the way.
bool IsMissing(const std::string& folder) {
  return !folder.empty() && access(folder.c_str(), F_OK) != 0;
}

absl::Status CheckOutputs(const CommandLine& command_line, const std::vector<Output>& outputs,
                          client::Dtype dtype, IfExists if_exists) {
  if (command_line.command == Command::kBackward) {
    const absl::Status status = files::CheckMayMakeFolder(command_line.out_dir);
    if (!status.ok()) return status;
  }
  for (const Output& output : outputs) {
    absl::StatusOr<files::Format> format = files::FormatOf(output.path);
    if (!format.ok()) return format.status();
    absl::Status status = files::CheckFormatHolds(*format, dtype);
    if (!status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(output.path, ": ", status.message()));
    }
    if (IsMissing(command_line.out_dir)) continue;
    status = files::CheckMayWrite(output.path, if_exists);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
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

// A line on stderr that shows how far a split operation has come. Silent where stderr is no
// terminal. Thread-safe. The line is wiped on destruction.
class ProgressBar {
 public:
  ~ProgressBar() {
    absl::MutexLock lock(&mutex_);
    if (shown_ > 0) fputs("\r\033[K", stderr);
  }

  // Shows that `num_done` of `num_chunks` are done; a number below one already shown is ignored.
  void Show(int64_t num_done, int64_t num_chunks) {
    if (!is_terminal_) return;
    absl::MutexLock lock(&mutex_);
    if (num_done <= shown_) return;
    shown_ = num_done;
    constexpr int64_t kWidth = 40;
    const auto filled = static_cast<size_t>(kWidth * num_done / num_chunks);
    const std::string bar = std::string(filled, '#') + std::string(kWidth - filled, '.');
    fputs(absl::StrFormat("\r[%s] %d/%d", bar, num_done, num_chunks).c_str(), stderr);
  }

 private:
  const bool is_terminal_ = isatty(STDERR_FILENO) == 1;
  absl::Mutex mutex_;
  int64_t shown_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Fills the results. Returns the SHA-256 of the weights that computed them, empty if there are
// none.
absl::StatusOr<std::string> Call(const CommandLine& command_line, client::Client& client,
                                 const std::vector<TensorFile>& inputs,
                                 std::vector<Tensor>& results) {
  ProgressBar bar;
  client::CallOptions options;
  options.on_chunk = [&bar](int64_t num_done, int64_t num_chunks) {
    bar.Show(num_done, num_chunks);
  };
  if (command_line.command == Command::kMlp) {
    const client::Mlp mlp = MlpOf(command_line, client);
    const client::OutputTensor result = results[0].mutable_bytes();
    return inputs.size() == 1
               ? mlp.ForwardInto(inputs[0].tensor, result, options)
               : mlp.BackwardInto(inputs[0].tensor, inputs[1].tensor, result, options);
  }
  const absl::Status status =
      inputs.size() == 2
          ? client.ForwardInto(inputs[0].tensor, inputs[1].tensor, results[0].mutable_bytes(),
                               options)
          : client.BackwardInto(inputs[0].tensor, inputs[1].tensor, inputs[2].tensor,
                                {results[0].mutable_bytes(), results[1].mutable_bytes(),
                                 results[2].mutable_bytes()},
                                options);
  if (!status.ok()) return status;
  return "";
}

// Ends the process with an error if it reads a part of an input that has been cut off.
files::TruncationWatch WatchInputs(const std::vector<TensorFile>& inputs) {
  std::vector<const files::MappedFile*> files;
  for (const TensorFile& input : inputs) files.push_back(input.file.get());
  return files::TruncationWatch("swiglu", static_cast<int>(ExitCode::kBadInput), files);
}

// Lost bytes of an input were sent as zeros, or could not be sent. Either way this is an error.
absl::Status CheckWhole(const std::vector<TensorFile>& inputs) {
  for (const TensorFile& input : inputs) {
    const absl::Status status = input.file->CheckWhole();
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// `status` with a note that says which of several results were written in spite of it.
absl::Status WithWritten(const absl::Status& status, size_t num_results,
                         const std::vector<std::string>& written) {
  if (num_results == 1) return status;
  return absl::Status(status.code(),
                      absl::StrCat(status.message(), "; results written: ",
                                   written.empty() ? "none" : absl::StrJoin(written, ", ")));
}

// Writes all files before the first one gets its final name. If one file cannot get its name, the
// others still get theirs.
absl::Status WriteOutputs(const std::vector<Output>& outputs, const std::vector<Tensor>& results,
                          IfExists if_exists, UnfinishedFiles& unfinished) {
  std::vector<std::unique_ptr<files::OutputFile>> pending;
  for (size_t k = 0; k < outputs.size(); ++k) {
    files::OutputFile::Created file = files::WriteTensor(outputs[k].path, outputs[k].name,
                                                         results[k].view(), if_exists, &unfinished);
    if (!file.ok()) return WithWritten(file.status(), outputs.size(), {});
    pending.push_back(*std::move(file));
  }
  absl::Status first_error;
  std::vector<std::string> written;
  for (const auto& file : pending) {
    const absl::Status status = file->Commit();
    first_error.Update(status);
    if (status.ok()) written.push_back(file->path());
  }
  return first_error.ok() ? first_error : WithWritten(first_error, outputs.size(), written);
}

// The same, but also makes backward's folder. An error removes the folder if it is new and empty.
absl::Status WriteOutputs(const CommandLine& command_line, const std::vector<Output>& outputs,
                          const std::vector<Tensor>& results, IfExists if_exists,
                          UnfinishedFiles& unfinished) {
  if (command_line.command != Command::kBackward) {
    return WriteOutputs(outputs, results, if_exists, unfinished);
  }
  absl::StatusOr<files::OutputFolder> folder =
      files::OutputFolder::Create(command_line.out_dir, &unfinished);
  if (!folder.ok()) return folder.status();
  const absl::Status status = WriteOutputs(outputs, results, if_exists, unfinished);
  if (status.ok()) folder->Keep();
  return status;
}

// What a finished call is reported by.
struct Done {
  const TensorView& like;  // a tensor with the dtype and the shape of all
  size_t num_tensors;      // of the call, in and out
  absl::Duration elapsed;
  std::string weights_sha256;  // empty if there are none
};

void PrintResult(const CommandLine& command_line, const std::vector<Output>& outputs,
                 const Done& done) {
  const auto& [like, num_tensors, elapsed, weights_sha256] = done;
  const bool is_mlp = command_line.command == Command::kMlp;
  const std::string op = IsBackward(command_line) ? "backward" : "forward";
  const std::string layer =
      is_mlp ? absl::StrCat("mlp ", command_line.model, " ", command_line.layer, " ") : "";
  const double ms = absl::ToDoubleMilliseconds(elapsed);
  const double gb_per_s =
      ms > 0 ? static_cast<double>(num_tensors * like.bytes.size()) / (ms * 1e6) : 0;
  if (!command_line.json) {
    const std::string weights = is_mlp ? absl::StrCat(", weights ", weights_sha256) : "";
    absl::PrintF("%s%s %s %s: %.3f ms, %.2f GB/s%s\n", layer, op, client::DatatypeName(like.dtype),
                 client::FormatShape(like.shape), ms, gb_per_s, weights);
    return;
  }
  nlohmann::ordered_json json;
  json["op"] = op;
  if (is_mlp) {
    json["model"] = command_line.model;
    json["layer"] = command_line.layer;
    json["weights_sha256"] = weights_sha256;
  }
  json["dtype"] = std::string(client::DatatypeName(like.dtype));
  json["shape"] = like.shape;
  json["ms"] = ms;
  json["gb_per_s"] = gb_per_s;
  for (const Output& output : outputs) json["files"][output.name] = output.path;
  // A path may be invalid UTF-8.
  puts(json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
}

}  // namespace

ProgramEnd RunInfer(const CommandLine& command_line, UnfinishedFiles& unfinished) {
  absl::StatusOr<client::Client> client =
      client::Client::Create(command_line.server, {.timeout = command_line.timeout});
  if (!client.ok()) return {ExitCode::kUsage, std::string(client.status().message())};
  const IfExists if_exists = command_line.overwrite ? IfExists::kOverwrite : IfExists::kFail;
  absl::StatusOr<std::vector<TensorFile>> inputs = OpenInputs(command_line);
  if (!inputs.ok()) return BadInput(inputs.status());
  absl::Status status = CheckInputs(command_line, *client, *inputs);
  if (!status.ok()) return BadInput(status);
  const TensorView& like = inputs->front().tensor;
  absl::StatusOr<std::vector<Output>> outputs = PlanOutputs(command_line, *inputs);
  if (!outputs.ok()) return BadInput(outputs.status());
  status = CheckOutputs(command_line, *outputs, like.dtype, if_exists);
  if (!status.ok()) return BadInput(status);
  absl::StatusOr<std::vector<Tensor>> results = MakeResults(outputs->size(), like);
  if (!results.ok()) return BadInput(results.status());

  const files::TruncationWatch watch = WatchInputs(*inputs);
  const ProgramEnd readiness = CheckReady(*client);
  if (readiness.code != ExitCode::kDone) return readiness;

  const absl::Time start = absl::Now();
  const absl::StatusOr<std::string> called = Call(command_line, *client, *inputs, *results);
  const absl::Duration elapsed = absl::Now() - start;
  // A damaged input may be the cause of a failed call, so its error takes precedence.
  status = CheckWhole(*inputs);
  if (!status.ok()) return BadInput(status);
  if (!called.ok()) return CallFailed(called.status(), *client);
  status = WriteOutputs(command_line, *outputs, *results, if_exists, unfinished);
  if (!status.ok()) return BadInput(status);
  PrintResult(command_line, *outputs, {like, inputs->size() + outputs->size(), elapsed, *called});
  return {};
}

}  // namespace swiglu::cli
