// SPDX-License-Identifier: Apache-2.0
//
// A folder of its own for a test that needs files; gone with the test.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "absl/strings/string_view.h"
#include "gtest/gtest.h"

namespace swiglu {

class TempFolder {
 public:
  TempFolder() {
    std::string pattern = ::testing::TempDir() + "/swiglu_test_XXXXXX";
    path_ = mkdtemp(pattern.data());
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  std::string Path(absl::string_view name) const { return path_ + "/" + std::string(name); }

  // Writes a file and gives its path.
  std::string Write(absl::string_view name, absl::string_view content) const {
    std::ofstream(Path(name), std::ios::binary).write(content.data(), content.size());
    return Path(name);
  }

  static std::string Read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  int NumFiles() const {
    int count = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(path_)) ++count;
    return count;
  }

 private:
  std::string path_;
};

}  // namespace swiglu
