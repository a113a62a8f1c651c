// User: parses users given on a command line. A pure function.
#pragma once

#include <string>

#include <sys/types.h>

#include "tools/outcome.h"

namespace rekeyfs::tools {

// A name in the system's user database, else a number.
Outcome<uid_t> user_named(const std::string& name_or_number);

}  // namespace rekeyfs::tools
