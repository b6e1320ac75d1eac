// SPDX-License-Identifier: Apache-2.0
//
// The kinds of values that flags take. For each kind, a function here returns a `ReadValue`
// (command_line.h), which reads a text into a field. The field must outlive the `ReadValue`.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/base/byte_size.h"
#include "server/base/command_line.h"

namespace swiglu::server {

inline bool AnyText(absl::string_view) { return true; }

// Any text for which `is_valid` returns true.
inline ReadValue Text(std::string* field, bool (*is_valid)(absl::string_view) = AnyText) {
  return [=](absl::string_view text) { return *field = std::string(text), is_valid(text); };
}

// The name of a file or of a folder, and any other text, too.
inline ReadValue PathText(std::string* field, ValueKind kind) {
  ReadValue read = Text(field);
  read.kind = kind;
  return read;
}

// A whole number from `least` to `most`.
template <typename Integer>
ReadValue Number(Integer* field, int64_t least, int64_t most) {
  return [=](absl::string_view text) {
    return absl::SimpleAtoi(text, field) && least <= *field && *field <= most;
  };
}

// A number of bytes from `least` to `most`, as ParseByteSize reads it.
inline ReadValue Bytes(int64_t* field, int64_t least, int64_t most) {
  return [=](absl::string_view text) {
    const std::optional<int64_t> bytes = ParseByteSize(text);
    *field = bytes.value_or(0);
    return bytes.has_value() && least <= *bytes && *bytes <= most;
  };
}

// A time from `least` to `most`, such as 500ms or 1m30s.
inline ReadValue Time(absl::Duration* field, absl::Duration least, absl::Duration most) {
  return [=](absl::string_view text) {
    return absl::ParseDuration(text, field) && least <= *field && *field <= most;
  };
}

// true or false.
inline ReadValue Truth(bool* field) {
  ReadValue read = [field](absl::string_view text) { return absl::SimpleAtob(text, field); };
  read.words = {"true", "false"};
  return read;
}

// One of several words. Each word stands for a value.
template <typename Value>
ReadValue OneOf(Value* field, std::vector<std::pair<std::string, Value>> values) {
  std::vector<std::string> words;
  words.reserve(values.size());
  for (const auto& [word, value] : values) words.push_back(word);
  ReadValue read = [field, values = std::move(values)](absl::string_view text) {
    for (const auto& [word, value] : values) {
      if (text == word) return *field = value, true;
    }
    return false;
  };
  read.words = std::move(words);
  return read;
}

// One of `words`, which is stored as text.
inline ReadValue Word(std::string* field, std::vector<std::string> words) {
  ReadValue read = [field, words](absl::string_view text) {
    *field = std::string(text);
    return std::find(words.begin(), words.end(), *field) != words.end();
  };
  read.words = std::move(words);
  return read;
}

}  // namespace swiglu::server
