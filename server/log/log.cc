// SPDX-License-Identifier: Apache-2.0
//
// Formats lines as text or as JSON, and passes them to a writer on stderr.
#include "server/log/log.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <string>

#include "server/base/shown_text.h"
#include "server/log/line_writer.h"

namespace swiglu::logging {
namespace {

enum class Format : uint8_t { kText, kJson };

struct LevelName {
  std::string_view text;
  char letter;
};

// Indexed by Level.
constexpr LevelName kLevels[] = {
    {"debug", 'D'},
    {"info", 'I'},
    {"warning", 'W'},
    {"error", 'E'},
};

std::atomic<Level> minimum_level{Level::kInfo};
std::atomic<Format> current_format{Format::kText};

using Buffer = fmt::memory_buffer;

void Append(std::string_view text, Buffer& out) {
  out.append(text.data(), text.data() + text.size());
}

// Appends a hidden character as an escape of JSON, so that a parser restores the character.
void AppendHiddenJson(char32_t code, Buffer& out) {
  if (code <= 0xFFFF) {
    Append(server::EscapeHidden(code), out);
    return;
  }
  const auto offset = static_cast<uint32_t>(code) - 0x10000;
  fmt::format_to(std::back_inserter(out), "\\u{:04x}\\u{:04x}", 0xD800 + (offset >> 10),
                 0xDC00 + (offset & 0x3FF));
}

// Appends `text` as one line of valid UTF-8 without hidden characters. If `format` is kJson,
// escapes what must be escaped inside a JSON string.
void AppendEscaped(std::string_view text, Format format, Buffer& out) {
  while (!text.empty()) {
    const server::Character character = server::FirstCharacter(text);
    if (character.num_bytes == 0) {
      Append(server::kReplacement, out);
    } else if (server::IsHidden(character.code)) {
      format == Format::kJson ? AppendHiddenJson(character.code, out)
                              : Append(server::EscapeHidden(character.code), out);
    } else {
      if (format == Format::kJson && (text[0] == '"' || text[0] == '\\')) out.push_back('\\');
      Append(text.substr(0, character.num_bytes), out);
    }
    text.remove_prefix(std::max<size_t>(character.num_bytes, 1));
  }
}

// Appends the time in UTC, such as `2026-01-31T12:00:00.000Z`.
void AppendTime(std::chrono::system_clock::time_point time, Buffer& out) {
  const auto since_epoch =
      std::chrono::floor<std::chrono::milliseconds>(time.time_since_epoch()).count();
  const std::time_t seconds = static_cast<std::time_t>(since_epoch / 1000);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  fmt::format_to(std::back_inserter(out), "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
                 utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min,
                 utc.tm_sec, since_epoch % 1000);
}

void AppendValue(const Field& field, Format format, Buffer& out) {
  if (const auto* number = std::get_if<int64_t>(&field.value)) {
    fmt::format_to(std::back_inserter(out), "{}", *number);
    return;
  }
  if (format == Format::kJson) out.push_back('"');
  AppendEscaped(std::get<std::string_view>(field.value), format, out);
  if (format == Format::kJson) out.push_back('"');
}

// Appends a message before fields. Writes `=` as `\u003d`, so that it cannot look like a field.
void AppendWithoutFields(std::string_view message, Buffer& out) {
  while (true) {
    const size_t end = message.find('=');
    AppendEscaped(message.substr(0, end), Format::kText, out);
    if (end == std::string_view::npos) return;
    Append("\\u003d", out);
    message.remove_prefix(end + 1);
  }
}

void AppendText(const LevelName& level, std::string_view message, std::span<const Field> fields,
                Buffer& out) {
  AppendTime(std::chrono::system_clock::now(), out);
  fmt::format_to(std::back_inserter(out), " {} ", level.letter);
  if (fields.empty()) {
    AppendEscaped(message, Format::kText, out);
  } else {
    AppendWithoutFields(message, out);
  }
  for (const Field& field : fields) {
    fmt::format_to(std::back_inserter(out), " {}=", field.key);
    AppendValue(field, Format::kText, out);
  }
}

void AppendJson(const LevelName& level, std::string_view message, std::span<const Field> fields,
                Buffer& out) {
  Append("{\"ts\":\"", out);
  AppendTime(std::chrono::system_clock::now(), out);
  fmt::format_to(std::back_inserter(out), "\",\"level\":\"{}\",\"msg\":\"", level.text);
  AppendEscaped(message, Format::kJson, out);
  out.push_back('"');
  for (const Field& field : fields) {
    fmt::format_to(std::back_inserter(out), ",\"{}\":", field.key);
    AppendValue(field, Format::kJson, out);
  }
  out.push_back('}');
}

// Formats a line, including its newline.
std::string MakeLine(Level level, std::string_view message, std::span<const Field> fields) {
  const LevelName& name = kLevels[static_cast<int>(level)];
  Buffer line;
  if (current_format.load(std::memory_order_relaxed) == Format::kJson) {
    AppendJson(name, message, fields, line);
  } else {
    AppendText(name, message, fields, line);
  }
  line.push_back('\n');
  return {line.data(), line.size()};
}

std::string MakeGapLine(int64_t num_dropped) {
  const Field fields[] = {{"dropped", num_dropped}};
  return MakeLine(Level::kWarning, "lines of the log dropped: nobody took them", fields);
}

// Never destroyed, so that destructors of static objects may log.
LineWriter& Writer() {
  static LineWriter& writer = *new LineWriter(STDERR_FILENO, MakeGapLine);
  return writer;
}

// If there is no memory for the line, counts it as dropped. The caller gets no error.
void WriteLine(Level level, std::string_view message, std::span<const Field> fields) noexcept try {
  Writer().Write(MakeLine(level, message, fields));
} catch (...) {
  Writer().CountDropped();
}

}  // namespace

bool SetLevel(std::string_view text) {
  for (size_t i = 0; i < std::size(kLevels); ++i) {
    if (kLevels[i].text == text) {
      minimum_level.store(static_cast<Level>(i), std::memory_order_relaxed);
      return true;
    }
  }
  return false;
}

void ToggleDebug(std::string_view usual) {
  if (!Enabled(Level::kDebug)) {
    SetLevel("debug");
    LOG(INFO, "log level: debug");
    return;
  }
  const std::string_view level = usual == "debug" ? "info" : usual;
  LOG(INFO, "log level: {}", level);  // before the new level may hide it
  CHECK(SetLevel(level));
}

bool SetFormat(std::string_view text) {
  if (text != "text" && text != "json") return false;
  current_format.store(text == "json" ? Format::kJson : Format::kText, std::memory_order_relaxed);
  return true;
}

bool WriteInBackground() {
  if (!Writer().Start()) return false;
  // If abort() ends the process, the lines that still wait are written first.
  struct sigaction action {};
  action.sa_handler = [](int) { Writer().FlushInSignalHandler(kLastWordsLimit); };
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  ::sigaction(SIGABRT, &action, nullptr);
  return true;
}

bool Flush(std::chrono::nanoseconds timeout) { return Writer().Flush(timeout); }

int64_t NumDroppedLines() { return Writer().num_dropped(); }

bool Enabled(Level level) { return level >= minimum_level.load(std::memory_order_relaxed); }

void LogWithFields(Level level, std::string_view message, std::span<const Field> fields) noexcept {
  if (Enabled(level)) WriteLine(level, message, fields);
}

int64_t RateLimiter::Admit(TimePoint now, std::chrono::nanoseconds interval) {
  const int64_t now_ns = std::chrono::nanoseconds(now.time_since_epoch()).count();
  int64_t last_ns = last_ns_.load(std::memory_order_relaxed);
  const bool may_pass = last_ns == kNever || now_ns - last_ns >= interval.count();
  // If several threads may pass at once, only one of them does.
  if (!may_pass || !last_ns_.compare_exchange_strong(last_ns, now_ns, std::memory_order_relaxed)) {
    num_suppressed_.fetch_add(1, std::memory_order_relaxed);
    return -1;
  }
  return num_suppressed_.exchange(0, std::memory_order_relaxed);
}

namespace internal {

void Write(Level level, int64_t num_suppressed, fmt::string_view format,
           fmt::format_args arguments) noexcept try {
  Buffer message;
  try {
    fmt::vformat_to(std::back_inserter(message), format, arguments);
  } catch (const std::exception&) {
    message.clear();
    message.append(format.data(), format.data() + format.size());
  }
  if (num_suppressed > 0) {
    fmt::format_to(std::back_inserter(message), " ({} like this suppressed)", num_suppressed);
  }
  WriteLine(level, {message.data(), message.size()}, {});
} catch (...) {
  Writer().CountDropped();
}

void CheckFailed(const char* file, int line, const char* condition) noexcept {
  Log(Level::kError, 0, "{}:{}: check failed: {}", file, line, condition);
  std::abort();
}

}  // namespace internal
}  // namespace swiglu::logging
