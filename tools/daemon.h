// Daemon: runs the server of a mount in a process of its own and tells the caller when it is ready.
#pragma once

#include <functional>

#include "tools/outcome.h"

namespace rekeyfs::tools {

// Serves until the mount is gone; calls `ready` once, from any thread, when the mount answers.
using Serve = std::function<ExitCode(const std::function<void()>& ready)>;

// Forks, before any thread has been started. The child runs `serve` and ends the process with its code; until it is
// ready it shares the caller's terminal, for its errors and for Ctrl-C, and then leaves it for good. The parent
// returns ExitCode::ok when the child is ready, else the code the child ended with.
Outcome<ExitCode> run_daemon(const Serve& serve);

}  // namespace rekeyfs::tools
