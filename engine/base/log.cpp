#include "engine/base/log.h"

#include <exception>
#include <string>
#include <string_view>

#include <spdlog/spdlog.h>

#include "engine/base/log_limit.h"

namespace rekeyfs::log {
namespace {

spdlog::level::level_enum spdlog_level(Level level) {
  switch (level) {
    case Level::debug: return spdlog::level::debug;
    case Level::info: return spdlog::level::info;
    case Level::warn: return spdlog::level::warn;
    case Level::error: return spdlog::level::err;
  }
  return spdlog::level::err;
}

// spdlog creates its registry on first use, under a guard in its library that a thread sanitizer does not see. Here it
// is created under a guard that the sanitizer sees.
spdlog::logger& default_logger() {
  static const bool is_made = spdlog::default_logger_raw() != nullptr;
  static_cast<void>(is_made);
  return *spdlog::default_logger_raw();
}

// The log is one for the whole process, and so are the bounds of its sources.
LogLimit& limit() {
  static LogLimit all;
  return all;
}

bool is_control(std::string_view text, std::size_t at) {
  const auto byte = static_cast<unsigned char>(text[at]);
  if (byte < 0x20 || byte == 0x7f) return true;
  // U+0080 to U+009F in UTF-8
  return byte >= 0x80 && byte < 0xa0 && at > 0 && static_cast<unsigned char>(text[at - 1]) == 0xc2;
}

}  // namespace

std::string on_one_line(std::string_view text) {
  std::string line;
  line.reserve(text.size());
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (!is_control(text, at)) line += text[at];
    else if (text[at] == '\n') line += "\\n";
    else fmt::format_to(std::back_inserter(line), "\\x{:02x}", static_cast<unsigned char>(text[at]));
  }
  return line;
}

void write(Level level, fmt::string_view format, fmt::format_args arguments) {
  spdlog::logger& logger = default_logger();
  if (!logger.should_log(spdlog_level(level))) return;
  // As in spdlog, a line that cannot be formatted or written is not an error.
  try {
    const std::optional<std::uint64_t> left_out = limit().admit(format.data(), LogLimit::Clock::now());
    if (!left_out) return;
    std::string line = on_one_line(fmt::vformat(format, arguments));
    if (*left_out > 0) line += " (and " + std::to_string(*left_out) + " earlier lines like this)";
    logger.log(spdlog_level(level), line);
  } catch (const std::exception& exception) {
    logger.log(spdlog::level::err, exception.what());
  }
}

}  // namespace rekeyfs::log
