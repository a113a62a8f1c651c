// Mounts: the rekeyfs mounts that this process can see (/proc/self/mountinfo).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/outcome.h"

namespace rekeyfs::tools {

struct Mount {
  std::string mountpoint;
  std::string type;    // "fuse.rekeyfs"
  std::string source;  // of a rekeyfs mount: the store's path

  bool is_rekeyfs() const { return type == "fuse.rekeyfs"; }
};

// Oldest first, so that the last of one mount point is the one on top.
Outcome<std::vector<Mount>> list_mounts();
std::vector<Mount> parse_mountinfo(std::string_view text);

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
