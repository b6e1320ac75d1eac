// SPDX-License-Identifier: Apache-2.0
//
// Plan → check → write → name.
#include "client/cli/infer_outputs.h"

#include <unistd.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "client/files/output_file.h"
#include "client/files/output_folder.h"
#include "client/files/tensor_output.h"

namespace swiglu::cli {
namespace {

using client::Tensor;
using files::Format;
using files::IfExists;
using files::NamedTensor;
using files::UnfinishedFiles;

IfExists IfExistsOf(const CommandLine& line) {
  return line.overwrite ? IfExists::kOverwrite : IfExists::kFail;
}

std::vector<std::string> ResultNames(const CommandLine& line) {
  if (line.command == Command::kMlp) return {IsBackward(line) ? "dx" : "y"};
  if (IsBackward(line)) return {"h", "df", "de"};
  return {"h"};
}

// Whether the folder for backward's results is missing. If so, no file in it can be in the way.
bool IsMissing(const std::string& folder) {
  return !folder.empty() && access(folder.c_str(), F_OK) != 0;
}

// The results of each output, with their names.
std::vector<std::vector<NamedTensor>> Share(const std::vector<Output>& outputs,
                                            const std::vector<Tensor>& results) {
  std::vector<std::vector<NamedTensor>> shares;
  size_t next = 0;
  for (const Output& output : outputs) {
    std::vector<NamedTensor>& share = shares.emplace_back();
    for (const std::string& name : output.results) share.push_back({name, results[next++].view()});
  }
  return shares;
}

// `status` with a note that says which of several files were written in spite of it.
absl::Status WithWritten(const absl::Status& status, size_t num_files,
                         const std::vector<std::string>& written) {
  if (num_files == 1) return status;
  return absl::Status(status.code(),
                      absl::StrCat(status.message(), "; results written: ",
                                   written.empty() ? "none" : absl::StrJoin(written, ", ")));
}

// Writes all files before the first one gets its final name. If one file cannot get its name, the
// others still get theirs.
absl::Status WriteFiles(const std::vector<Output>& outputs, const std::vector<Tensor>& results,
                        IfExists if_exists, UnfinishedFiles& unfinished) {
  const std::vector<std::vector<NamedTensor>> shares = Share(outputs, results);
  std::vector<std::unique_ptr<files::OutputFile>> pending;
  for (size_t k = 0; k < outputs.size(); ++k) {
    files::OutputFile::Created file =
        files::WriteTensors(outputs[k].path, shares[k], if_exists, &unfinished);
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

}  // namespace

absl::Status CheckOutputFlags(const CommandLine& command_line) {
  const bool has_file = !command_line.out.empty();
  const bool has_folder = !command_line.out_dir.empty();
  const char* wrong = nullptr;
  if (command_line.command == Command::kBackward) {
    if (has_file && has_folder) wrong = "--out and --out_dir do not go together";
    if (!has_file && !has_folder) wrong = "--out or --out_dir is missing";
  } else if (!has_file) {
    wrong = "--out is missing";
  }
  if (command_line.out_dir == files::kStandardStream) {
    wrong = "--out_dir is a folder; --out=- is standard output";
  }
  if (wrong == nullptr) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(wrong, "; see swiglu --help"));
}

absl::StatusOr<std::vector<Output>> PlanOutputs(const CommandLine& command_line,
                                                const Inputs& inputs) {
  const std::vector<std::string> names = ResultNames(command_line);
  const bool is_file = !command_line.out.empty() && !IsOnStandardOutput(command_line);
  const absl::StatusOr<Format> format =
      is_file ? files::FormatOf(command_line.out) : inputs.CommonFormat();
  if (!format.ok()) return format.status();
  if (!command_line.out.empty()) return {{{command_line.out, *format, names}}};
  std::vector<Output> outputs;
  for (const std::string& name : names) {
    outputs.push_back({absl::StrCat(command_line.out_dir, "/", name, files::Extension(*format)),
                       *format,
                       {name}});
  }
  return outputs;
}

bool IsOnStandardOutput(const CommandLine& command_line) {
  return command_line.out == files::kStandardStream;
}

absl::Status CheckOutputs(const CommandLine& command_line, const std::vector<Output>& outputs,
                          client::Dtype dtype) {
  if (!command_line.out_dir.empty()) {
    absl::Status status = files::CheckMayMakeFolder(command_line.out_dir);
    if (!status.ok()) return status;
  }
  const bool is_stdout = IsOnStandardOutput(command_line);
  for (const Output& output : outputs) {
    absl::Status status = files::CheckFormatHolds(output.format, dtype, output.results.size());
    if (!status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(is_stdout ? "stdout" : output.path, ": ", status.message()));
    }
    if (is_stdout || IsMissing(command_line.out_dir)) continue;
    status = files::CheckMayWrite(output.path, IfExistsOf(command_line));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status WriteOutputs(const CommandLine& command_line, const std::vector<Output>& outputs,
                          const std::vector<Tensor>& results, UnfinishedFiles& unfinished) {
  if (IsOnStandardOutput(command_line)) {
    return files::WriteTensorsToStandardOutput(outputs[0].format, Share(outputs, results)[0]);
  }
  const IfExists if_exists = IfExistsOf(command_line);
  if (command_line.out_dir.empty()) return WriteFiles(outputs, results, if_exists, unfinished);
  absl::StatusOr<files::OutputFolder> folder =
      files::OutputFolder::Create(command_line.out_dir, &unfinished);
  if (!folder.ok()) return folder.status();
  absl::Status status = WriteFiles(outputs, results, if_exists, unfinished);
  if (status.ok()) folder->Keep();
  return status;
}

}  // namespace swiglu::cli
