// Holders: the processes that keep a mount busy, as far as /proc shows them to this user.
#pragma once

#include <string>
#include <vector>

#include <sys/types.h>

namespace rekeyfs::tools {

struct Holder {
  pid_t process;
  std::string command;
};

// The processes with an open file, a working directory, a root directory or a program at or below `mountpoint`, by
// process id. Reads links but does not follow them, because the target may be in a mount that does not answer. After
// two seconds, returns those found so far. `proc` is the directory to search. Forks: the caller must be
// single-threaded.
std::vector<Holder> holders_of(const std::string& mountpoint, const std::string& proc = "/proc");

}  // namespace rekeyfs::tools
