// LogTarget: where the lines of engine/base/log.h are written. Set by the program's main thread before it starts
// others.
#pragma once

#include <string>

#include "tools/outcome.h"

namespace rekeyfs::tools {

enum class LogDetail { warnings, everything };

void log_to_stderr(LogDetail detail);
// These two also write warnings and errors to stderr, for the user that started the program.
void log_to_syslog();
Outcome<void> log_to_file(const std::string& path);  // appends

}  // namespace rekeyfs::tools
