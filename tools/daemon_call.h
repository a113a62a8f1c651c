// DaemonCall: sends one command to the daemon of a mounted store, through a directory of the mount.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "tools/outcome.h"

namespace rekeyfs::tools {

// Returns the "ok" part of the answer. `directory` is an open descriptor; ExitCode::not_mounted if it is not in a
// rekeyfs mount. Messages use `path` as its name.
Outcome<nlohmann::json> call_daemon(int directory, const std::string& path, const nlohmann::json& request);

}  // namespace rekeyfs::tools
