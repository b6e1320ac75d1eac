// SPDX-License-Identifier: Apache-2.0
//
// Each file appears whole or not at all.
#include "client/bench/result_files.h"

#include <cstddef>
#include <string>

#include "client/bench/histogram_text.h"
#include "client/bench/sweep.h"
#include "client/files/output_file.h"
#include "client/files/unfinished_files.h"

namespace swiglu::bench {
namespace {

absl::Status WriteFile(const std::string& path, const std::string& text) {
  files::UnfinishedFiles unfinished;
  files::OutputFile::Created file =
      files::OutputFile::Create(path, files::IfExists::kOverwrite, &unfinished);
  if (!file.ok()) return file.status();
  absl::Status status =
      (*file)->Write({reinterpret_cast<const std::byte*>(text.data()), text.size()});
  if (status.ok()) status = (*file)->Sync();
  return status.ok() ? (*file)->Commit() : status;
}

}  // namespace

absl::Status CheckResultFiles(const CommandLine& command) {
  absl::Status status;
  for (const std::string& path : {command.histogram, command.plot}) {
    if (!path.empty()) status.Update(files::CheckMayWrite(path, files::IfExists::kOverwrite));
  }
  return status;
}

absl::Status WriteResultFiles(const CommandLine& command, const std::vector<Report>& reports) {
  absl::Status status;
  if (!command.histogram.empty()) {
    status = WriteFile(command.histogram, FormatHistogram(reports.front().tally.Total().latency));
  }
  if (status.ok() && !command.plot.empty()) {
    status = WriteFile(command.plot, DrawSweep(FormatLoad(command), SweepPoints(reports)));
  }
  return status;
}

}  // namespace swiglu::bench
