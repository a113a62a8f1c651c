// Users as they are given on a command line. A pure function.
#pragma once

#include <string>

#include <sys/types.h>

#include "tools/outcome.h"

namespace rekeyfs::tools {

// By the name that the system's user database has, else by number.
Outcome<uid_t> user_named(const std::string& name_or_number);

}  // namespace rekeyfs::tools
