// Mounts: the rekeyfs mounts that this process can see, and how paths lead to them.
#pragma once

#include <optional>
#include <string>

#include "fs/mountinfo.h"
#include "tools/outcome.h"

namespace rekeyfs::tools {

using Mount = fs::MountEntry;

// What is mounted at exactly that path.
Outcome<std::optional<Mount>> mount_at(const std::string& mountpoint);
// Where the store with that path is mounted.
Outcome<std::optional<Mount>> mount_of_store(const std::string& store);

// Absolute, without symbolic links. The last component is not looked into if it cannot be: a mount whose daemon
// has died answers nothing, and still has to be found.
Outcome<std::string> absolute_path(const std::string& path);

// Why a path cannot be looked at, from errno; ExitCode::not_mounted with the way out if it is in a dead mount.
tl::unexpected<Failure> unreachable(int error_number, const std::string& path);

}  // namespace rekeyfs::tools
