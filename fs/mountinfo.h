// Mountinfo: what is mounted where, as the kernel tells this process (/proc/self/mountinfo). Thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"

namespace rekeyfs::fs {

struct MountEntry {
  std::string mountpoint;
  std::string type;    // "fuse.rekeyfs"
  std::string source;  // of a rekeyfs mount: the store's path
  std::string device;  // "0:35", as /sys names it

  bool is_rekeyfs() const { return type == "fuse.rekeyfs"; }
};

// Oldest first, so that the last of one mount point is the one on top. Errc::io if /proc is not there.
Result<std::vector<MountEntry>> list_mounts();
// Lines of another shape are passed over.
std::vector<MountEntry> parse_mountinfo(std::string_view text);

}  // namespace rekeyfs::fs
