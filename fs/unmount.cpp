#include "fs/unmount.h"

#include <cerrno>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <initializer_list>
#include <vector>

namespace rekeyfs::fs {
namespace {

// Whether the program ended well. Its messages go nowhere: that a mount is in use is no news to a terminal.
bool run(std::initializer_list<const char*> command) {
  std::vector<char*> arguments;
  for (const char* argument : command) arguments.push_back(const_cast<char*>(argument));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  const int failed = ::posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) return false;
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return false;
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace

bool unmount_if_unused(const std::string& mountpoint) {
  if (::geteuid() == 0 && run({"umount", "--internal-only", "--", mountpoint.c_str()})) return true;
  return run({"fusermount3", "-u", "--", mountpoint.c_str()});
}

void write_back(const std::string& mountpoint) {
  run({"sync", "--file-system", "--", mountpoint.c_str()});
}

}  // namespace rekeyfs::fs
