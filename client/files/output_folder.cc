// SPDX-License-Identifier: Apache-2.0
//
// Makes the missing folders of a path, the outermost first.
#include "client/files/output_folder.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace swiglu::files {
namespace {

absl::Status CannotUse(absl::string_view path, absl::string_view what, int error) {
  return absl::ErrnoToStatus(error, absl::StrCat(path, ": cannot ", what));
}

bool IsThere(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 || errno != ENOENT;
}

// `path` and its parents as they are written, the innermost first. A relative path does not name
// the current folder; `.` at the end of the list stands for it.
std::vector<std::string> WithParents(const std::string& path) {
  std::vector<std::string> folders;
  std::filesystem::path rest(path);
  while (!rest.empty()) {
    // Both "a/" and "a/." are the folder "a".
    if (rest.has_filename() && rest.filename() != ".") folders.push_back(rest.string());
    if (rest == rest.root_path()) {
      folders.push_back(rest.string());
      return folders;
    }
    rest = rest.parent_path();
  }
  folders.emplace_back(".");
  return folders;
}

}  // namespace

absl::Status CheckMayMakeFolder(const std::string& path) {
  for (const std::string& folder : WithParents(path)) {
    if (!IsThere(folder)) continue;
    struct stat info;
    if (stat(folder.c_str(), &info) != 0) return CannotUse(path, "write to the folder", errno);
    if (!S_ISDIR(info.st_mode)) return CannotUse(path, "write to the folder", ENOTDIR);
    if (access(folder.c_str(), W_OK | X_OK) == 0) return absl::OkStatus();
    return CannotUse(path, IsThere(path) ? "write to the folder" : "make the folder", errno);
  }
  return absl::OkStatus();
}

absl::StatusOr<OutputFolder> OutputFolder::Create(const std::string& path,
                                                  UnfinishedFiles* unfinished) {
  OutputFolder made(unfinished);
  const std::vector<std::string> folders = WithParents(path);
  size_t num_missing = 0;
  while (num_missing < folders.size() && !IsThere(folders[num_missing])) ++num_missing;
  while (num_missing > 0) {
    const std::string& folder = folders[--num_missing];
    const int error = unfinished->Make(
        folder, [&folder] { return mkdir(folder.c_str(), 0777) == 0 ? 0 : errno; });
    // If another process has made the folder in the meantime, it is not ours.
    if (error == EEXIST) continue;
    if (error != 0) return CannotUse(path, "make the folder", error);
    made.made_.push_back(folder);
  }
  return made;
}

OutputFolder::~OutputFolder() {
  for (; !made_.empty(); made_.pop_back()) {
    rmdir(made_.back().c_str());
    unfinished_->Forget(made_.back());
  }
}

void OutputFolder::Keep() {
  for (const std::string& folder : made_) unfinished_->Forget(folder);
  made_.clear();
}

}  // namespace swiglu::files
