// Pages: the whole list of replications, which the daemon answers in parts.
#pragma once

#include "tools/target.h"

namespace rekeyfs::tools {

// The answer to "status" or "progress" with all replications, ordered by path.
Outcome<nlohmann::json> call_for_replications(Target& target, const char* command);

}  // namespace rekeyfs::tools
