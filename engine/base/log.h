// Log: the engine's log. Lines are formatted with {fmt} and go to the target set by the program (spdlog's default
// logger).
//
// A line stays one line, whatever names and messages have in it: control characters are escaped. Each caller may write a
// bounded number of lines (log_limit.h). Never log a key, a passphrase or image content. Thread-safe.
#pragma once

#include <string>
#include <string_view>

#include <fmt/core.h>

namespace rekeyfs::log {

// Control characters as \n or \x1b.
std::string on_one_line(std::string_view text);

enum class Level { debug, info, warn, error };
void write(Level level, fmt::string_view format, fmt::format_args arguments);

template <typename... Arguments>
void debug(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  write(Level::debug, format, fmt::make_format_args(arguments...));
}
template <typename... Arguments>
void info(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  write(Level::info, format, fmt::make_format_args(arguments...));
}
template <typename... Arguments>
void warn(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  write(Level::warn, format, fmt::make_format_args(arguments...));
}
template <typename... Arguments>
void error(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  write(Level::error, format, fmt::make_format_args(arguments...));
}

}  // namespace rekeyfs::log
