// Users by name and number, as the system's user database has them. Pure functions.
#pragma once

#include <string>

#include <sys/types.h>

#include "tools/outcome.h"

namespace rekeyfs::tools {

// By name, else by number.
Outcome<uid_t> user_named(const std::string& name_or_number);
// The number where the user has no name.
std::string name_of_user(uid_t user);

}  // namespace rekeyfs::tools
