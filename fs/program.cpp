#include "fs/program.h"

#include <cerrno>
#include <csignal>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace rekeyfs::fs {
namespace {

void kill_after(pid_t child, std::chrono::milliseconds limit) {
  const int descriptor = static_cast<int>(::syscall(SYS_pidfd_open, child, 0));  // glibc's declares it for C only
  pollfd ended{.fd = descriptor, .events = POLLIN, .revents = 0};
  if (descriptor < 0 || ::poll(&ended, 1, static_cast<int>(limit.count())) <= 0) ::kill(child, SIGKILL);
  if (descriptor >= 0) ::close(descriptor);
}

}  // namespace

bool run(const std::vector<std::string>& command, std::chrono::milliseconds at_most) {
  std::vector<char*> arguments;
  for (const std::string& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  const int failed = ::posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) return false;
  if (at_most != kNoLimit) kill_after(child, at_most);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return false;
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace rekeyfs::fs
