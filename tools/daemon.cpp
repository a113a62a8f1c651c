#include "tools/daemon.h"

#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/descriptor.h"
#include "engine/base/pipe.h"
#include "engine/base/read.h"

namespace rekeyfs::tools {
namespace {

constexpr int kReadyDescriptor = 3;  // first one after stdin, stdout and stderr

// Closes all other descriptors of the caller, which would otherwise stay open as long as the mount.
void inherit_only(int ready) {
  if (ready != kReadyDescriptor) dup2(ready, kReadyDescriptor);
  close_range(kReadyDescriptor + 1, UINT_MAX, 0);
  fcntl(kReadyDescriptor, F_SETFD, FD_CLOEXEC);
}

void leave_terminal() {
  setsid();
  Descriptor null(open("/dev/null", O_RDWR | O_CLOEXEC));
  for (int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) dup2(null.get(), standard);
  if (chdir("/") != 0) return;  // "/" always exists; failing only keeps the working directory busy
}

// Ends the daemon if the caller has ended (Ctrl-C, time limit) and so does not want the mount any more.
void announce_ready() {
  leave_terminal();
  char ready = 1;
  if (write(kReadyDescriptor, &ready, 1) != 1) kill(getpid(), SIGTERM);
  close(kReadyDescriptor);
}

[[noreturn]] void be_daemon(const Serve& serve, int ready) {
  inherit_only(ready);
  signal(SIGPIPE, SIG_IGN);
  ExitCode code = serve(announce_ready);
  std::exit(static_cast<int>(code));
}

Outcome<ExitCode> exit_code_of_child(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status)) return static_cast<ExitCode>(WEXITSTATUS(status));
  return fail(ExitCode::failure, "signal " + std::to_string(WTERMSIG(status)) +
                                     " ended the daemon before the mount was ready; see the daemon's log");
}

}  // namespace

Outcome<ExitCode> run_daemon(const Serve& serve) {
  RK_TRY_ASSIGN(Pipe readiness, Pipe::create());
  std::fflush(nullptr);  // otherwise the child would print buffered output again
  pid_t child = fork();
  if (child < 0) return tl::unexpected<Failure>(error_from_errno(errno, "start the daemon"));
  if (child == 0) be_daemon(serve, readiness.write.get());
  readiness.write.reset();
  std::byte ready{};
  if (read_full(readiness.read.get(), {&ready, 1}) == 1u) return ExitCode::ok;
  return exit_code_of_child(child);
}

}  // namespace rekeyfs::tools
