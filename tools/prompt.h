// Prompt: asks for a secret on the controlling terminal, without echo.
#pragma once

#include <string>

#include "engine/base/secret_memory.h"
#include "tools/outcome.h"

namespace rekeyfs::tools {

// Reads one line and returns it without line feed. ExitCode::wrong_secret if there is no terminal or the line is empty.
// If a signal ends the program (Ctrl-C), the terminal's echo is restored first.
Outcome<SecretBytes> ask_secret(const std::string& question);

}  // namespace rekeyfs::tools
