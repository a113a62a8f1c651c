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

// Those with an open file, a working directory, a root or a program at or below `mountpoint`.
std::vector<Holder> holders_of(const std::string& mountpoint);

}  // namespace rekeyfs::tools
