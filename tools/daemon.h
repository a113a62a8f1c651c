// Daemon: runs the server of a mount in its own process and tells the caller when it is ready.
#pragma once

#include <functional>

#include "tools/outcome.h"

namespace rekeyfs::tools {

// Serves until the mount has ended; calls `ready` once, from any thread, when the mount answers.
using Serve = std::function<ExitCode(const std::function<void()>& ready)>;

// Forks; no thread may have been started. The child calls `serve` and exits with its code. Until it is ready it uses
// the caller's terminal, for errors and Ctrl-C; then it detaches from it. The parent returns ExitCode::ok when the
// child is ready, or the child's exit code.
Outcome<ExitCode> run_daemon(const Serve& serve);

}  // namespace rekeyfs::tools
