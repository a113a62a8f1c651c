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

// Its registry is made at the first use, under a guard in spdlog's library, which a thread sanitizer does not see; so it
// is made under one that it does.
spdlog::logger& default_logger() {
  static const bool is_made = spdlog::default_logger_raw() != nullptr;
  static_cast<void>(is_made);
  return *spdlog::default_logger_raw();
}

}  // namespace

void write(Level level, fmt::string_view format, fmt::format_args arguments) {
  spdlog::logger& logger = default_logger();
  if (!logger.should_log(spdlog_level(level))) return;
  // As spdlog does: a line that cannot be formatted or written is no reason to fail.
  try {
    logger.log(spdlog_level(level), fmt::vformat(format, arguments));
  } catch (const std::exception& exception) {
    logger.log(spdlog::level::err, exception.what());
  }
}

}  // namespace rekeyfs::log
