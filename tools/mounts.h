// Mounts: the rekeyfs mounts that this process sees, and paths that lead to them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "fs/mountinfo.h"
#include "tools/outcome.h"

namespace rekeyfs::tools {

using Mount = fs::MountEntry;

// The mount at exactly that path.
Outcome<std::optional<Mount>> mount_at(const std::string& mountpoint);
// The mount of the store with that path, of the whole of it.
Outcome<std::optional<Mount>> mount_of_store(const std::string& store);

// How a command comes to a node: through an open directory, and by a path from there on.
struct Way {
  std::string directory;
  std::string path;  // empty for the directory itself
};
// The ways to an absolute path in a rekeyfs mount, the best one first: through the top of a mount of the whole store, in
// which operators are operators; through the top of the mount that the path is in, which may be a bind mount; through
// the directory itself, if its user may not read those. Empty if the path is in no rekeyfs mount.
Outcome<std::vector<Way>> ways_to(const std::string& path);

// Makes a path absolute and resolves symbolic links. If the last component cannot be examined it is kept as it is: a
// mount whose daemon has died does not answer, but must be found.
Outcome<std::string> absolute_path(const std::string& path);

// Turns errno of a failed access to a path into a failure; ExitCode::not_mounted, with the remedy, if the path is in a
// dead mount.
tl::unexpected<Failure> unreachable(int error_number, const std::string& path);

}  // namespace rekeyfs::tools
