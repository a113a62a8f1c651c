// Holders: which processes keep a mount busy, as far as /proc tells this user.
#pragma once

#include <string>
#include <vector>

#include <sys/types.h>

namespace rekeyfs::tools {

struct Holder {
  pid_t process;
  std::string command;
};

// Those with an open file, a working directory, a root or a program at or below `mountpoint`, by number. Links are read
// and never followed: what one points to may be in a mount that answers nobody. If even that takes longer than two
// seconds, those found by then. `proc` is the file system to look in. Single-threaded callers only (it forks).
std::vector<Holder> holders_of(const std::string& mountpoint, const std::string& proc = "/proc");

}  // namespace rekeyfs::tools
