// LogTarget: where the lines of engine/base/log.h go. The program's main thread decides, before other threads start.
#pragma once

#include <string>

#include "tools/outcome.h"

namespace rekeyfs::tools {

enum class LogDetail { warnings, everything };

void log_to_stderr(LogDetail detail);
// These two send warnings and errors to stderr as well, for whoever started the program.
void log_to_syslog();
Outcome<void> log_to_file(const std::string& path);  // appends

}  // namespace rekeyfs::tools
