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

}  // namespace

void write(Level level, fmt::string_view format, fmt::format_args arguments) {
  spdlog::logger& logger = *spdlog::default_logger_raw();
  if (!logger.should_log(spdlog_level(level))) return;
  // As spdlog does: a line that cannot be formatted or written is no reason to fail.
  try {
    logger.log(spdlog_level(level), fmt::vformat(format, arguments));
  } catch (const std::exception& exception) {
    logger.log(spdlog::level::err, exception.what());
  }
}

}  // namespace rekeyfs::log
