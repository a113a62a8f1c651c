// Prompt: asks for a secret on the controlling terminal, without echo.
#pragma once

#include <string>

#include "engine/base/secret_memory.h"
#include "tools/outcome.h"

namespace rekeyfs::tools {

// One line, without its end. ExitCode::wrong_secret if there is no terminal or nothing was typed. A signal that
// ends the program (Ctrl-C) does so with the terminal's echo restored.
Outcome<SecretBytes> ask_secret(const std::string& question);

}  // namespace rekeyfs::tools
