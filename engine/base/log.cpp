#include "engine/base/log.h"

#include <exception>

#include <spdlog/spdlog.h>

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

}  // namespace

void write(Level level, fmt::string_view format, fmt::format_args arguments) {
  spdlog::logger& logger = default_logger();
  if (!logger.should_log(spdlog_level(level))) return;
  // As in spdlog, a line that cannot be formatted or written is not an error.
  try {
    logger.log(spdlog_level(level), fmt::vformat(format, arguments));
  } catch (const std::exception& exception) {
    logger.log(spdlog::level::err, exception.what());
  }
}

}  // namespace rekeyfs::log
