// SPDX-License-Identifier: Apache-2.0
//
// The log: one line per event on stderr, as text or as JSON. Every server folder except
// `server/base` may include it.
//
//   LOG(INFO, "listening on {}", address);
//   LOG_EVERY(WARNING, std::chrono::seconds(1), "queue is full: {} requests", num_requests);
//   CHECK(size_bytes > 0);
//
// Format strings are those of spdlog's fmt, and are checked at compile time. Arguments are
// evaluated only if the line is written.
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

// Sets the level: lines below it are not written from now on. At the start the level is `info`.
// `text` is debug, info, warning or error. For any other text, returns false and changes nothing.
// Thread-safe.
bool SetLevel(std::string_view text);

// Sets the level to `debug`. If it is `debug` already, sets it to `usual`, or to `info` if `usual`
// is `debug`. Logs the new level. One thread at a time. REQUIRES: `usual` is a level's name.
void ToggleDebug(std::string_view usual);

// Sets the format of lines from now on. At the start the format is `text`. In this format a line is
// `2026-01-31T12:00:00.000Z I message`. In `json`, a line is one object with ts, level and msg. A
// message is always one line, because hidden characters (see shown_text.h) are escaped. If `text`
// is neither text nor json, returns false and changes nothing. Thread-safe.
bool SetFormat(std::string_view text);

// The longest time for which an ending process waits for its last lines to be written.
inline constexpr std::chrono::milliseconds kLastWordsLimit{500};

// Starts the log's own thread, which writes the lines from now on. Before this call, each thread
// writes its own lines. After it, a thread that logs never blocks: lines wait while nobody reads
// stderr. If too many wait, the oldest are dropped and a line says how many (LineWriter has the
// limits). Before the process ends, it must call Flush. abort() flushes by itself, for at
// most kLastWordsLimit. If no thread can be started, returns false and changes nothing. Call it
// once.
bool WriteInBackground();

// Blocks until all lines so far are written or dropped. Returns false if that takes longer than
// `timeout`. Thread-safe.
bool Flush(std::chrono::nanoseconds timeout);

// How many lines were dropped. Thread-safe.
int64_t NumDroppedLines();

// Whether lines of `level` are written. Thread-safe.
bool Enabled(Level level);

// A value beside the message. In text, ` key=value` follows the message. In JSON, the field is a
// member of the object. Values are escaped like messages. In a text line with fields, each `=` of
// the message is escaped, too, so that no part of the message looks like a field.
struct Field {
  std::string_view key;
  std::variant<std::string_view, int64_t> value;
};

// Writes a line with fields, if its level is enabled. Thread-safe. Never throws.
void LogWithFields(Level level, std::string_view message, std::span<const Field> fields) noexcept;

// Lets one event per interval pass, and counts the others. Thread-safe. Never blocks.
class RateLimiter {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  constexpr RateLimiter() = default;

  // If an event at `now` may pass, returns how many events were held back since the last event
  // passed (0 or more). Returns -1 if the event must be dropped.
  int64_t Admit(TimePoint now, std::chrono::nanoseconds interval);

  // Returns how many events were held back and not reported yet, and counts them as reported. For a
  // caller that reports them before a further event passes.
  int64_t TakeSuppressed() { return num_suppressed_.exchange(0, std::memory_order_relaxed); }

 private:
  static constexpr int64_t kNever = INT64_MIN;

  std::atomic<int64_t> last_ns_{kNever};  // when the last event passed
  std::atomic<int64_t> num_suppressed_{0};
};

// Only the macros below use this namespace.
namespace internal {

// Writes one line. If formatting fails at run time, writes `format` itself. Never throws.
void Write(Level level, int64_t num_suppressed, fmt::string_view format,
           fmt::format_args arguments) noexcept;

[[noreturn]] void CheckFailed(const char* file, int line, const char* condition) noexcept;

// A string class that fmt does not know, such as another library's string_view. It is passed to fmt
// as a std::string_view.
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

// Like LOG, but writes at most one line per `interval` from this place in the code. The line says
// how many lines were held back before it.
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

// If `condition` is false, logs the place and the expression, and aborts the process. It does so in
// every build. For programmer errors. The place names the file without its folder, so that a
// program does not depend on where it was built.
#define CHECK(condition)                                                             \
  do {                                                                               \
    if (!(condition)) [[unlikely]] {                                                 \
      ::swiglu::logging::internal::CheckFailed(__FILE_NAME__, __LINE__, #condition); \
    }                                                                                \
  } while (false)
