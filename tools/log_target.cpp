#include "tools/log_target.h"

#include <memory>
#include <utility>
#include <vector>

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/sinks/syslog_sink.h>
#include <spdlog/spdlog.h>
#include <syslog.h>

namespace rekeyfs::tools {
namespace {

constexpr const char* kStamped = "%Y-%m-%dT%H:%M:%S.%e%z %l %v";

spdlog::sink_ptr prepared(spdlog::sink_ptr sink, spdlog::level::level_enum level, const char* pattern) {
  sink->set_level(level);
  sink->set_pattern(pattern);
  return sink;
}

spdlog::sink_ptr warnings_on_stderr() {
  return prepared(std::make_shared<spdlog::sinks::stderr_sink_mt>(), spdlog::level::warn, "rekeyfs: %v");
}

void use(std::vector<spdlog::sink_ptr> sinks) {
  auto logger = std::make_shared<spdlog::logger>("rekeyfs", sinks.begin(), sinks.end());
  logger->set_level(spdlog::level::info);
  logger->flush_on(spdlog::level::info);  // so that the last lines before a crash are not lost
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace

void log_to_stderr(LogDetail detail) {
  if (detail == LogDetail::warnings) return use({warnings_on_stderr()});
  use({prepared(std::make_shared<spdlog::sinks::stderr_sink_mt>(), spdlog::level::info, kStamped)});
}

void log_to_syslog() {
  auto syslog = std::make_shared<spdlog::sinks::syslog_sink_mt>("rekeyfs", LOG_PID, LOG_DAEMON, false);
  use({prepared(std::move(syslog), spdlog::level::info, "%v"), warnings_on_stderr()});
}

Outcome<void> log_to_file(const std::string& path) {
  try {
    auto file = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path);
    use({prepared(std::move(file), spdlog::level::info, kStamped), warnings_on_stderr()});
    return {};
  } catch (const spdlog::spdlog_ex& exception) {
    return fail(ExitCode::usage, "cannot write the log to " + path + ": " + exception.what());
  }
}

}  // namespace rekeyfs::tools
