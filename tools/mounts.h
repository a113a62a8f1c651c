// Mounts: the rekeyfs mounts that this process sees, and paths that lead to them.
#pragma once

#include <optional>
#include <string>

#include "fs/mountinfo.h"
#include "tools/outcome.h"

namespace rekeyfs::tools {

using Mount = fs::MountEntry;

// The mount at exactly that path.
Outcome<std::optional<Mount>> mount_at(const std::string& mountpoint);
// The mount of the store with that path.
Outcome<std::optional<Mount>> mount_of_store(const std::string& store);

// Makes a path absolute and resolves symbolic links. If the last component cannot be examined it is kept as it is: a
// mount whose daemon has died does not answer, but must be found.
Outcome<std::string> absolute_path(const std::string& path);

// Turns errno of a failed access to a path into a failure; ExitCode::not_mounted, with the remedy, if the path is in a
// dead mount.
tl::unexpected<Failure> unreachable(int error_number, const std::string& path);

}  // namespace rekeyfs::tools
