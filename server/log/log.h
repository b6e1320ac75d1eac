// SPDX-License-Identifier: Apache-2.0
//
// The log: one line per event on stderr, as text or as JSON, with the fmt that spdlog brings. Every
// server folder may include it.
//
//   LOG(INFO, "listening on {}", address);
//   LOG_EVERY(WARNING, std::chrono::seconds(1), "queue is full: {} requests", num_requests);
//   CHECK(size_bytes > 0);
//
// Formats are fmt's and checked at compile time. Arguments are evaluated only when the line is
// written.
#pragma once

#include <spdlog/fmt/fmt.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>
#include <variant>

#if defined(LOG) || defined(LOG_EVERY) || defined(CHECK)
#error "server/log/log.h: another header defines LOG, LOG_EVERY or CHECK"
#endif

namespace swiglu::logging {

enum class Level : uint8_t { kDebug, kInfo, kWarning, kError };

// Lines below this level are dropped from here on; `info` at start. `text` is debug, info, warning
// or error. Returns false, and changes nothing, for any other text. Thread-safe.
bool SetLevel(std::string_view text);

// Switches the level to `debug`, or, if it is `debug` already, to `usual`. If `usual` is `debug`,
// it switches to `info` instead. Logs the new level. One thread at a time. REQUIRES: `usual` is a
// level's name.
void ToggleDebug(std::string_view usual);

// How lines look from here on; `text` at start: `2026-01-31T12:00:00.000Z I message`, or `json`:
// one object with ts, level and msg. A message is always one line: hidden characters in it (see
// shown_text.h) are escaped. Returns false, and changes nothing, for any other text. Thread-safe.
bool SetFormat(std::string_view text);

// How long, at most, an ending process waits until its last lines are taken.
inline constexpr std::chrono::milliseconds kLastWordsLimit{500};

// From here on the log's own thread writes the lines, and a thread that logs never blocks. Lines
// that nobody takes from stderr wait. If too many wait, the oldest are dropped and a line says how
// many (LineWriter has the limits). Before this call, each thread writes its own lines. A process
// that ends must flush the log, or call abort(), which flushes it for kLastWordsLimit. Returns
// false, and changes nothing, if no thread can be started. Call it once.
bool WriteInBackground();

// Blocks until every line so far is written or dropped, for `timeout` at most. Returns whether they
// are. Thread-safe.
bool Flush(std::chrono::nanoseconds timeout);

// How many lines were dropped. Thread-safe.
int64_t NumDroppedLines();

// Whether a line of that level would be written. Thread-safe.
bool Enabled(Level level);

// A value beside the message: ` key=value` behind it in text, a member of its own in JSON. Values
// are escaped as messages are. In text, the message of a line with fields has its own `=` escaped,
// too. So everything that looks like a field is a field.
struct Field {
  std::string_view key;
  std::variant<std::string_view, int64_t> value;
};

// Writes a line with fields, if its level is enabled. Thread-safe. Never throws.
void LogWithFields(Level level, std::string_view message, std::span<const Field> fields) noexcept;

// Lets one event per interval through, and counts the others. Thread-safe, never blocks.
class RateLimiter {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  constexpr RateLimiter() = default;

  // If an event at `now` may pass, returns how many were held back since the last one that passed
  // (0 or more). Returns -1 if the event must be dropped.
  int64_t Admit(TimePoint now, std::chrono::nanoseconds interval);

  // Returns how many events were held back and not reported yet, for a caller that reports them
  // without a further event. They count as reported from then on.
  int64_t TakeSuppressed() { return num_suppressed_.exchange(0, std::memory_order_relaxed); }

 private:
  static constexpr int64_t kNever = INT64_MIN;

  std::atomic<int64_t> last_ns_{kNever};  // when an event passed last
  std::atomic<int64_t> num_suppressed_{0};
};

// What the macros expand to; not called directly.
namespace internal {

// Writes one line. A format that fails at run time is written as it is. Never throws.
void Write(Level level, int64_t num_suppressed, fmt::string_view format,
           fmt::format_args arguments) noexcept;

[[noreturn]] void CheckFailed(const char* file, int line, const char* condition) noexcept;

// A string class that fmt does not know (another library's string_view); it is passed as
// std::string_view.
template <typename T>
concept ForeignString =
    std::is_class_v<T> && !fmt::is_formattable<T>::value && requires(const T& text) {
  std::string_view(text.data(), text.size());
};

template <typename T>
using Adapted = std::conditional_t<ForeignString<T>, std::string_view, T>;

template <typename T>
const T& Adapt(const T& value) {
  return value;
}
template <ForeignString T>
std::string_view Adapt(const T& text) {
  return std::string_view(text.data(), text.size());
}

template <typename... Adapted>
void WriteAdapted(Level level, int64_t num_suppressed, fmt::string_view format,
                  const Adapted&... arguments) {
  Write(level, num_suppressed, format, fmt::make_format_args(arguments...));
}

template <typename... Arguments>
void Log(Level level, int64_t num_suppressed,
         fmt::format_string<Adapted<std::remove_cvref_t<Arguments>>...> format,
         Arguments&&... arguments) {
  WriteAdapted(level, num_suppressed, format, Adapt(arguments)...);
}

// The levels as the macros spell them.
inline constexpr Level kDEBUG = Level::kDebug;
inline constexpr Level kINFO = Level::kInfo;
inline constexpr Level kWARNING = Level::kWarning;
inline constexpr Level kERROR = Level::kError;

}  // namespace internal
}  // namespace swiglu::logging

// Writes a line at `level`: DEBUG, INFO, WARNING or ERROR.
#define LOG(level, ...)                                                                        \
  do {                                                                                         \
    if (::swiglu::logging::Enabled(::swiglu::logging::internal::k##level)) {                   \
      ::swiglu::logging::internal::Log(::swiglu::logging::internal::k##level, 0, __VA_ARGS__); \
    }                                                                                          \
  } while (false)

// As LOG, but at most once per `interval` from this place in the code. The line says how many lines
// were held back before it.
#define LOG_EVERY(level, interval, ...)                                           \
  do {                                                                            \
    if (::swiglu::logging::Enabled(::swiglu::logging::internal::k##level)) {      \
      static ::swiglu::logging::RateLimiter swiglu_log_limiter;                   \
      const int64_t swiglu_log_suppressed =                                       \
          swiglu_log_limiter.Admit(::std::chrono::steady_clock::now(), interval); \
      if (swiglu_log_suppressed >= 0) {                                           \
        ::swiglu::logging::internal::Log(::swiglu::logging::internal::k##level,   \
                                         swiglu_log_suppressed, __VA_ARGS__);     \
      }                                                                           \
    }                                                                             \
  } while (false)

// If `condition` is false, logs the place and the expression and ends the process, in every build.
// For programmer errors. The place is the file without its folder, so that a program does not
// depend on where it was built.
#define CHECK(condition)                                                             \
  do {                                                                               \
    if (!(condition)) [[unlikely]] {                                                 \
      ::swiglu::logging::internal::CheckFailed(__FILE_NAME__, __LINE__, #condition); \
    }                                                                                \
  } while (false)
